"""`eval bound`: from eval.toml to the terms of theorem 6.1 on your own models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from tqdm import tqdm

from alignpro_lite.errors import InputError
from alignpro_lite.eval.bound.terms import BoundModels, BoundPlan, measure_bound
from alignpro_lite.eval.config import BoundSection, EvalConfig
from alignpro_lite.eval.evaluation import open_evaluation
from alignpro_lite.eval.journal import CURE
from alignpro_lite.eval.loaded import Loaded
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.measure.bound import PromptTerms, bound_table
from alignpro_lite.registry.record import Origin, parse_written
from alignpro_lite.registry.storage import write_text

BOUND = "bound.json"
TERMS = "bound.jsonl"
"""The terms of every prompt, written as they are measured."""


def evaluate_bound(config: EvalConfig, places: Places, note: Callable[[str], None]) -> str:
    """Measure the terms, write them to bound.json, and return them as text.

    Args:
        config: Its table [bound] says how much is drawn; a system of kind oracle stands for π*.
        places: Where things are.
        note: Told what people who wait should know.

    Raises:
        InputError: There is no [bound], or λ is not known.
        AlignProError: A model is missing or failed; what was computed is kept.
    """
    section = config.bound
    if section is None:
        raise InputError(
            "The bound needs a table [bound], found none in the configuration.",
            "Add a line [bound], which may stay empty, and choose another --output.",
        )
    with open_evaluation(config, places, note) as evaluation:
        loaded, journal = evaluation.loaded, evaluation.journal(TERMS)
        models = BoundModels(
            target=loaded.require_llama("The bound"),
            reference=loaded.prompter(section.bundle, adapter=0.0),
            reward=loaded.reward,
            oracle=loaded.oracle(config.oracle) if config.oracle else None,
        )
        plan = BoundPlan(
            draws=section,
            strength=_strength(section, loaded),
            max_tokens=config.answers.max_tokens,
            seed=config.seed,
        )
        origin = Origin(journal.file, InputError, CURE)
        known = [parse_written(PromptTerms, row, origin) for row in journal.read()]
        with tqdm(total=section.prompts, initial=len(known), unit="prompt") as bar:

            def on_terms(terms: PromptTerms) -> None:
                journal.append([asdict(terms)])
                bar.update()

            prompts = evaluation.mixed(section.prompts)
            found = measure_bound(models, prompts, plan, known, on_terms)
        write_text(places.run / BOUND, json.dumps(asdict(found), indent=2) + "\n")
    return bound_table(found)


def _strength(section: BoundSection, loaded: Loaded) -> float:
    strength = section.strength or loaded.bundle(section.bundle).sidecar.provenance.strength
    if strength is None:
        raise InputError(
            "The bound needs λ, and this prompter was trained with none.",
            "Set bound.strength.",
        )
    return strength
