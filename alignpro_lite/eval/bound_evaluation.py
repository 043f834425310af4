"""`eval bound`: from eval.toml to the terms of theorem 6.1 on one's own models."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict

from tqdm import tqdm

from alignpro_lite.errors import InputError
from alignpro_lite.eval.assemble import Loaded, mixed, models_used, prompts_of, texts_of
from alignpro_lite.eval.bound import table
from alignpro_lite.eval.bound_run import BoundModels, BoundPlan, measure_bound
from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.eval.runner import identify
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.registry.storage import disk_errors, write_text

FILE = "bound.json"


def evaluate_bound(config: EvalConfig, places: Places, note: Callable[[str], None]) -> str:
    """Measure the terms, write them to bound.json, and give them as text.

    Args:
        config: Its table [bound] says how much is drawn; a system of kind oracle stands for π*.
        places: Where.
        note: Told what people who wait should know.

    Raises:
        InputError: λ is not known.
        AlignProError: A model is missing or failed.
    """
    section = config.bound
    with disk_errors(places.run), ExitStack() as stack:
        prompts, notes = prompts_of(config, places)
        for sentence in notes:
            note(sentence)
        texts = texts_of(config, places, prompts)
        identify(config, places, models_used(config, places), texts)
        loaded = Loaded(config, places, stack)
        models = BoundModels(
            target=loaded.require_llama("The bound"),
            reference=loaded.prompter(section.bundle, adapter=0.0),
            reward=loaded.reward,
            oracle=loaded.oracle(config.oracle) if config.oracle else None,
        )
        plan = BoundPlan(
            strength=_strength(config, loaded),
            rewrites=section.rewrites,
            answers=section.answers,
            max_tokens=config.answers.max_tokens,
            r_max=None,
            seed=config.seed,
        )
        with tqdm(total=section.prompts, unit="prompt") as bar:
            some = mixed(prompts, section.prompts)
            found = measure_bound(models, some, plan, lambda done, total: bar.update())
    write_text(places.run / FILE, json.dumps(asdict(found), indent=2) + "\n")
    return table(found)


def _strength(config: EvalConfig, loaded: Loaded) -> float:
    trained = loaded.bundle(config.bound.bundle).sidecar.provenance.strength
    strength = config.bound.strength or trained
    if strength is None:
        raise InputError(
            "The bound needs λ, and this prompter was trained with none.",
            "Set bound.strength.",
        )
    return strength
