"""A GGUF LoRA as a prompter: does it fit the target, and how was it trained to be asked?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alignpro_lite.errors import BundleError
from alignpro_lite.gguf.header import GgufFile, Tensor
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.card import PrompterCard
from alignpro_lite.prompter.targets import KnownTarget
from alignpro_lite.registry.record import Origin, parse_written

BASE_KEY = "alignpro_lite.base_sha256"
"""Where the file says which GGUF it was made for; files of other programs do not."""
CARD_KEY = "alignpro_lite.prompter_card"
"""Where the file has its `PrompterCard`, as JSON."""
_FACTORS = (".lora_a", ".lora_b")
_CURE = "Use an adapter that was made for this target, or pass --prompter self."


@dataclass(frozen=True)
class LoraFile:
    """An adapter that was checked.

    Attributes:
        path: The GGUF file.
        n_bytes: Its size.
        card: How it was trained to be asked; None if it does not say.
    """

    path: Path
    n_bytes: int
    card: PrompterCard | None


def open_lora(path: Path, base: GgufFile, known: KnownTarget) -> LoraFile:
    """Read the header of an adapter and compare it with the target that it is to change.

    Args:
        path: A GGUF file.
        base: The header of the target.
        known: Name and digest of the target.

    Raises:
        ModelFileError: It is no whole GGUF file.
        BundleError: It is no LoRA, was made for another file, or does not fit this one.
    """
    file = read_header(path)
    kind = file.metadata.get("general.type"), file.metadata.get("adapter.type")
    if kind != ("adapter", "lora"):
        raise BundleError(
            f"{path} is no GGUF LoRA: expected general.type adapter and adapter.type lora, found "
            f"{kind[0]!r:.40} and {kind[1]!r:.40}.",
            "Give the .gguf file of a LoRA adapter.",
        )
    made_for = file.metadata.get(BASE_KEY)
    if made_for is not None and made_for != known.sha256:
        raise BundleError(
            f"{path} was made for the file with sha256 {made_for!r:.66}, and {known.name} has "
            f"{known.sha256}.",
            _CURE,
        )
    _require_fitting(file, base)
    return LoraFile(path, path.stat().st_size, _card_of(file))


def _card_of(file: GgufFile) -> PrompterCard | None:
    written = file.metadata.get(CARD_KEY)
    if written is None:
        return None
    origin = Origin(file.path, BundleError, "Make the adapter again.")
    try:
        raw = msgspec.json.decode(str(written))
    except msgspec.DecodeError as error:
        raise BundleError(
            f"{file.path}: {CARD_KEY} must be JSON, found an error: {error}.",
            "Make the adapter again.",
        ) from error
    return parse_written(PrompterCard, raw, origin)


def _require_fitting(file: GgufFile, base: GgufFile) -> None:
    """Refuse factors that do not multiply a weight of the base.

    Raises:
        BundleError: Names the first one.
    """
    if file.architecture != base.architecture:
        raise _misfit(file, base, f"the architecture {file.architecture!r}", base.architecture)
    weights = {tensor.name: tensor for tensor in base.tensors}
    factors = {tensor.name: tensor for tensor in file.tensors}
    down, up = _FACTORS
    for name in sorted({name.removesuffix(down).removesuffix(up) for name in factors}):
        if name not in weights:
            raise _misfit(file, base, f"factors of {name!r:.60}", "no such weight")
        _require_pair(file, base, weights[name], factors)


def _require_pair(
    file: GgufFile, base: GgufFile, weight: Tensor, factors: Mapping[str, Tensor]
) -> None:
    """Refuse two factors whose product has another shape than their weight."""
    shapes = [factors[weight.name + end].shape for end in _FACTORS if weight.name + end in factors]
    if len(shapes) == 2 and all(len(shape) == 2 for shape in (*shapes, weight.shape)):
        (inner, rank), (same_rank, outer) = shapes
        if rank == same_rank and (inner, outer) == weight.shape:
            return
    raise _misfit(file, base, f"factors of {weight.name} of shapes {shapes}", f"{weight.shape}")


def _misfit(file: GgufFile, base: GgufFile, ours: str, theirs: str) -> BundleError:
    return BundleError(
        f"The adapter {file.path} does not fit {base.path.name}: it has {ours}, and the model has "
        f"{theirs}.",
        _CURE,
    )
