"""Which prompter goes with a target, and what is said where it was not made for it."""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.assembly.shipped import is_at_hand
from alignpro_lite.errors import AlignProError
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.prompter.card import read_prompter_card
from alignpro_lite.prompter.targets import KnownTarget, TargetClaim
from alignpro_lite.registry import DEFAULT, BundleRecipe, Entry, ModelStore
from alignpro_lite.registry.known_digests import digest_of_file


def bundle_for(store: ModelStore, target: str | Path, file: Path) -> Entry:
    """The bundle to use when only a target was named: the one that was made for it.

    Args:
        store: Where models are.
        target: What was named, `default` for the target of the preset.
        file: Its GGUF file.

    Returns:
        A row whose adapter was trained for a file with these bytes and which is here, else that of
        the preset.
    """
    usual = store.default("bundle")
    if target == DEFAULT:
        return usual
    rows = [entry for entry in store.registry.entries if entry.kind == "bundle"]
    for entry in sorted(rows, key=lambda entry: entry != usual):
        claim = _claim_of(entry)
        if claim.known and is_at_hand(store, entry):
            wanted = known_target(store, target, file)
            if any(map(wanted.is_same, claim.known)):
                return entry
    return usual


def known_target(store: ModelStore, target: str | Path, file: Path) -> KnownTarget:
    """A GGUF file as claims name it.

    Raises:
        RegistryError: The file cannot be read.
    """
    return KnownTarget(_name_of(store, target), digest_of_file(store, file))


def _name_of(store: ModelStore, target: str | Path) -> str:
    """What people call a target that was named in any way."""
    return store.default("target").name if target == DEFAULT else Path(target).name


def mismatch(store: ModelStore, bundle: Bundle, target: str | Path, file: Path) -> str | None:
    """What a user has to know of a prompter that was not made for a target; None if it was.

    Args:
        store: Remembers digests.
        bundle: The prompter.
        target: What was named.
        file: Its GGUF file.
    """
    claim = bundle.sidecar.targets
    if claim.any_by is not None:
        return None
    if claim.known and claim.covers(known_target(store, target, file)):
        return None
    origin = bundle.sidecar.provenance
    made = " and ".join(known.name for known in claim.known)
    history = f"was trained for {made}" if made else "was not trained for any target"
    if origin.reference and not origin.adapter:
        history = "learned from examples, not by a reward, and so for no target"
    return (
        f"The prompter {bundle.profile.name} {history}, and {_name_of(store, target)} answers: "
        "--mode off sends prompts as they are, --prompter names another one, and "
        "`alignpro-lite train prompter` makes one for it."
    )


def _claim_of(entry: Entry) -> TargetClaim:
    """What the adapter of a row says; a damaged card says nothing until its bundle is used."""
    if not isinstance(entry.recipe, BundleRecipe) or entry.recipe.adapter is None:
        return TargetClaim()
    try:
        card = read_prompter_card(entry.recipe.adapter)
    except AlignProError:
        return TargetClaim()
    return card.targets if card else TargetClaim()
