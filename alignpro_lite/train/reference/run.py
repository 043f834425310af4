"""One reference run from its configuration to its adapter, in a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import torch
from tqdm import tqdm

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.experiment.models import target_of
from alignpro_lite.experiment.run_folder import Places, claim, sole_run
from alignpro_lite.experiment.sections import GgufSection
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.prompter.card import PROMPTER_CARD, PrompterCard
from alignpro_lite.prompter.targets import TargetClaim
from alignpro_lite.prompter.template import TEMPLATES, RewriteTemplate
from alignpro_lite.registry.record import plain, write_record
from alignpro_lite.registry.storage import write_text
from alignpro_lite.train.allocator import keep_freed_memory
from alignpro_lite.train.metrics import Metrics
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import AskedSection
from alignpro_lite.train.prompter.run import words_of
from alignpro_lite.train.reference.config import ReferenceConfig
from alignpro_lite.train.reference.held_out import DrawnHint, HintFigures, measure_hints
from alignpro_lite.train.reference.pairs import read_pairs
from alignpro_lite.train.reference.trainer import Lesson, ReferenceTrainer, lesson_of

HINTS = "hints.md"
"""Written last: it marks a run that is done."""
_SHOWN = 40


def train_reference(config: ReferenceConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Start a run or resume it, and write its adapter and held-out hints when it is done.

    Args:
        config: What to train.
        places: Where things are.
        note: Called with each progress message.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or cannot be learned from.
    """
    keep_freed_memory()
    base = places.store.path("prompter", config.prompter.base)
    claim(places.run, config)
    if (places.run / HINTS).is_file():
        note(f"The run in {places.run} is done; its hints are in {HINTS} there.")
        return True
    with sole_run(places.run):
        return _train(config, base, places, note)


def _train(
    config: ReferenceConfig, base: Path, places: Places, note: Callable[[str], None]
) -> bool:
    section, training = config.prompter, config.training
    measured = TargetClaim(
        tuple(target_of(GgufSection(source=name), places.store) for name in config.targets)
    )
    pairs = read_pairs(config.data, places.data)
    for line in pairs.left_out:
        note(line)
    note(f"{len(pairs.train)} pairs to train on, {len(pairs.held_out)} held out.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    template = asked_plainly(section, places.data)
    policy = Policy(base, template, section, section.max_tokens, device, training.seed)
    train, held_out = (
        [lesson_of(policy, pair) for pair in some] for some in (pairs.train, pairs.held_out)
    )
    trainer = ReferenceTrainer(policy, train, held_out, training, places.run)
    if not _train_to_the_end(trainer, places.run):
        note(f"Stopped and saved at step {trainer.step}; the same command resumes there.")
        return False
    _finish(
        config,
        _card_of(config, policy.tokens.template, measured),
        policy,
        held_out,
        places.run,
        note,
    )
    return True


def asked_plainly(section: AskedSection, folder: Path) -> RewriteTemplate:
    """What a supervised prompter is asked: examples are in its weights, and not in its request.

    Raises:
        AlignProError: See `words_of`.
    """
    if section.template is not None:
        return words_of(section.template, "prompter.template", section.mode, folder)
    return msgspec.structs.replace(TEMPLATES[section.mode], examples=())


def _train_to_the_end(trainer: ReferenceTrainer, run: Path) -> bool:
    """Train, with metrics and a progress bar; whether the last step was reached."""
    with (
        closing(Metrics(run, trainer.step)) as metrics,
        # No smoothing: a step with a measurement takes several times as long as others.
        tqdm(total=trainer.steps, initial=trainer.step, unit="step", smoothing=0) as bar,
    ):
        seen: dict[str, float] = {}

        def on_step(values: Mapping[str, float]) -> None:
            metrics.write(trainer.step, values)
            seen.update(values)
            names = {"loss": "loss", "held_out": "held out"}
            bar.set_postfix_str(
                ", ".join(
                    f"{label} {seen[name]:.3f}" for name, label in names.items() if name in seen
                ),
                refresh=False,
            )
            bar.update()

        return trainer.train(on_step)


def _finish(
    config: ReferenceConfig,
    card: PrompterCard,
    policy: Policy,
    held_out: Sequence[Lesson],
    run: Path,
    note: Callable[[str], None],
) -> None:
    """Write the adapter with its card, and what it does with held-out prompts."""
    # First without figures: a failure while measuring must not cost the adapter.
    _write_adapter(card, policy, run / ADAPTER_FOLDER)
    note(f"Measuring on {len(held_out)} held-out prompts.")
    temperature, seed = config.prompter.temperature, config.training.seed
    figures, drawn = measure_hints(policy, held_out, temperature, seed)
    note(f"{figures.summary()}.")
    told = msgspec.structs.replace(card, metrics=plain(figures))
    _write_adapter(told, policy, run / ADAPTER_FOLDER)
    write_text(run / HINTS, _as_markdown(figures, drawn))


def _card_of(
    config: ReferenceConfig, template: RewriteTemplate, measured: TargetClaim
) -> PrompterCard:
    """What an adapter is told to be, before anything is known about its hints."""
    section = config.prompter
    return PrompterCard(
        base=section.base,
        template=template,
        reference_rank=section.rank,
        strength=None,
        reward=None,
        sampling=Sampling(temperature=section.temperature),
        max_tokens=section.max_tokens,
        targets=measured,
        metrics={},
        doubt=section.doubt,
    )


def _write_adapter(card: PrompterCard, policy: Policy, folder: Path) -> None:
    """Write the adapter in peft's form at half precision, with its card."""
    save_adapter(policy.model, card.base, folder)
    write_record(folder / PROMPTER_CARD, card)


def _as_markdown(figures: HintFigures, drawn: Sequence[DrawnHint]) -> str:
    """Figures and hints to read, spread over the held-out prompts."""
    every = max(1, len(drawn) // _SHOWN)
    shown = [_shown(hint) for hint in drawn[::every][:_SHOWN]]
    return "\n\n".join(["# Held-out hints", f"{figures.summary()}.", *shown]) + "\n"


def _shown(drawn: DrawnHint) -> str:
    pair = drawn.lesson.pair
    said = [f"{turn.role}: {turn.content}" for turn in pair.earlier] + [pair.prompt]
    quoted = "\n>\n".join("> " + text.replace("\n", "\n> ") for text in said)
    return (
        f"## {pair.kind} ({pair.language})\n\n{quoted}\n\n"
        f"- by hand: {pair.hint or '(empty)'}\n- drawn: {drawn.text or '(empty)'}"
    )
