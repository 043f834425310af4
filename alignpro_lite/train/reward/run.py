"""One reward run: read the data, train, measure, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from alignpro_lite.experiment.run_folder import Places, claim, sole_run
from alignpro_lite.export.reward import RewardRequest, export_reward
from alignpro_lite.reward.torch_reward import RewardCard
from alignpro_lite.train.reward.config import RewardConfig
from alignpro_lite.train.reward.data import read_data
from alignpro_lite.train.reward.trainer import fit_reward

BUNDLE = "bundle"


def train_reward(config: RewardConfig, places: Places, note: Callable[[str], None]) -> Path:
    """Train a reward model and export it.

    Args:
        config: What to train.
        places: Where things are; the run folder gets adapter, card, and the reward bundle.
        note: Called with each progress message.

    Returns:
        The reward bundle.

    Raises:
        AlignProError: The folder holds another run, the data or the base cannot be used, or the
            export disagrees with torch.
    """
    base = places.store.path("reward", config.model.base)
    claim(places.run, config)
    with sole_run(places.run):
        return _train(config, base, places, note)


def _train(config: RewardConfig, base: Path, places: Places, note: Callable[[str], None]) -> Path:
    examples = read_data(config.data, config.parts, places.data, config.training.held_out)
    for line in examples.left_out:
        note(line)
    note(f"{len(examples.train)} examples to train on, {len(examples.held_out)} held out.")
    card = fit_reward(config, base, examples, places.run)
    for line in held_out_lines(card):
        note(line)
    request = RewardRequest(places.run, base, "int8", allow_mismatch=False)
    export_reward(request, places.run / BUNDLE, note=note)
    return places.run / BUNDLE


def held_out_lines(card: RewardCard) -> Iterator[str]:
    """The held-out figures of a card, one sentence for each file."""
    for source, figures in card.metrics.items():
        if pairs := figures.get("pairs"):
            low, high = pairs["accuracy_95"]
            yield (
                f"{source} ({figures['part']}): {pairs['accuracy']:.3f} of {pairs['count']} "
                f"held-out pairs right (95 %: {low:.3f} to {high:.3f}; the longer answer: "
                f"{pairs['accuracy_of_length']:.3f}), log-loss {pairs['log_loss']:.3f}, "
                f"calibration error {pairs['calibration_error']:.3f}."
            )
            if pairs["accuracy"] < pairs["accuracy_of_length"]:
                yield f"It is below length on {source}: always take the longer answer instead."
        if ratings := figures.get("ratings"):
            yield (
                f"{source} ({figures['part']}): correlation {ratings['correlation']:.3f} with "
                f"{ratings['count']} held-out ratings."
            )
