"""From the description of a reward to a loaded one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta

from alignpro_lite.decoding.probe import ProbedModel, require_working
from alignpro_lite.errors import InputError
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import Label, Record
from alignpro_lite.reward.bundle import REWARD_BUNDLE
from alignpro_lite.reward.check import CHECK_SOURCES, CheckScorer, CheckSource
from alignpro_lite.reward.exchange import NO_REFERENCES, References
from alignpro_lite.reward.judge import load_judge
from alignpro_lite.reward.onnx_reward import OnnxScorer
from alignpro_lite.reward.reward import CallableScorer, Reward, Scorer

_FUNCTION_PART = "reward"
"""What the one part of a Python function is called if nobody names it."""


class ScorerSource(Record):
    """One scorer of a reward and the weights of its parts; `[[reward]]` of a configuration.

    Attributes:
        kind: onnx (a reward bundle), huggingface (a classifier folder), judge (a GGUF under a
            rubric), python (package.module:function) or check (of the answer against the
            reference of its prompt).
        source: A reward of models.toml or its folder (onnx), a folder (huggingface), a target of
            models.toml or a GGUF file (judge), the function (python), or exact, gsm8k, ifeval, or
            task for the one of these that the data of each prompt name (check).
        weights: Weight of each named part; a judge, a function and a check have one part each.
            Those of a reward bundle that is given by its name alone are empty: it brings its own.
    """

    kind: Literal["onnx", "huggingface", "judge", "python", "check"]
    source: str
    weights: Annotated[dict[Label, float], Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Refuse a check that does not exist.

        Raises:
            InputError: Names those that do.
        """
        if self.kind == "check" and self.source not in CHECK_SOURCES:
            raise InputError(
                f"source of a check must be {', '.join(CHECK_SOURCES[:-1])} or "
                f"{CHECK_SOURCES[-1]}, found {self.source!r:.40}.",
                "Correct source.",
            )


def scorer_named(reward: str | Path) -> ScorerSource:
    """The scorer that a single name stands for.

    Args:
        reward: A reward bundle, a name of models.toml, `default`, or a Python function as
            `package.module:function`.
    """
    if isinstance(reward, str) and ":" in reward and not Path(reward).exists():
        return ScorerSource("python", reward, {_FUNCTION_PART: 1.0})
    return ScorerSource("onnx", str(reward), {})


def open_reward(
    sources: Iterable[ScorerSource],
    store: ModelStore,
    threads: int,
    references: References = NO_REFERENCES,
) -> Reward:
    """Load scorers as one weighted sum of their parts.

    Args:
        sources: The scorers; their parts have different names.
        store: Where models are.
        threads: CPU threads of each.
        references: What is known about right answers to the prompts.

    Raises:
        InputError: There is a check, and no reference or one that it cannot use.
        RegistryError: A name is unknown or its model is not installed.
        AlignProError: A scorer is missing or damaged, or has other parts than are weighted.
    """
    scorers: list[Scorer] = []
    weights: dict[str, float] = {}
    with ExitStack() as closing:  # what did load must not outlive the failure of another one
        for source in sources:
            scorer, own = _open_scorer(source, store, threads, references)
            closing.callback(scorer.close)
            scorers.append(scorer)
            weights |= source.weights or own
        reward = Reward(scorers, weights, references)
        closing.pop_all()
    return reward


def _open_scorer(
    source: ScorerSource, store: ModelStore, threads: int, references: References
) -> tuple[Scorer, Mapping[str, float]]:
    """A scorer and the weights that it brings itself."""
    match source.kind:
        case "onnx":
            folder = store.path("reward", source.source)
            sidecar = REWARD_BUNDLE.open(folder)
            require_working(ProbedModel("reward", folder, "cpu", {"threads": threads}), store.cache)
            return OnnxScorer(folder, sidecar.model, threads), sidecar.weights
        case "huggingface":
            import alignpro_lite.pretrained  # noqa: F401 - first: it keeps the hub out
            from alignpro_lite.reward.classifier import HfScorer

            return HfScorer(Path(source.source), tuple(source.weights)), {}
        case "judge":
            path = store.path("target", source.source)
            return load_judge(path, store.cache, _only_part(source), threads=threads), {}
        case "python":
            return CallableScorer(source.source, _only_part(source)), {}
        case "check":
            check = cast(CheckSource, source.source)
            return CheckScorer(check, _only_part(source), references), {}


def _only_part(source: ScorerSource) -> str:
    if len(source.weights) == 1:
        return next(iter(source.weights))
    raise InputError(
        f"A reward of kind {source.kind} has one part, found {len(source.weights)} weights.",
        "Give each function, judge or check a [[reward]] of its own.",
    )
