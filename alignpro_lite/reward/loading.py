"""From the name of a reward to a loaded one."""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.onnx_reward import load_reward
from alignpro_lite.reward.reward import CallableScorer, Reward

_FUNCTION_PART = "reward"
"""What the one part of a Python function is called."""


def open_reward(name: str | Path | None, store: ModelStore, threads: int) -> Reward | None:
    """Load a reward; None for None.

    Args:
        name: A reward bundle, a name of models.toml, `default`, or a Python function as
            `package.module:function`.
        store: Where it is.
        threads: CPU threads.

    Raises:
        RegistryError: The name is unknown or its model is not installed.
        BundleError: A file of the bundle is missing or altered.
        InputError: There is no such function.
    """
    if name is None:
        return None
    if isinstance(name, str) and ":" in name and not Path(name).exists():
        return Reward([CallableScorer(name, _FUNCTION_PART)], {_FUNCTION_PART: 1.0})
    return load_reward(store.path("reward", name), threads)
