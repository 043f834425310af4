"""An open evaluation: its folder claimed, its prompts read, its models at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.errors import InputError
from alignpro_lite.eval.arms import lineup_of, with_controls
from alignpro_lite.eval.config import (
    AnySystem,
    EvalConfig,
    PrompterSystemSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.inputs import mixed, models_used, prompts_of, texts_of
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.loaded import Loaded
from alignpro_lite.eval.summary import ModelUsed
from alignpro_lite.experiment.run_folder import Places, claim
from alignpro_lite.registry.record import plain
from alignpro_lite.registry.storage import locked, write_text
from alignpro_lite.reward.exchange import References

_LOCK = "evaluation.lock"
_MODELS = "models.json"
_PROMPTS = "prompts.json"


@dataclass(frozen=True)
class Evaluation:
    """What everything that measures works on.

    Attributes:
        config: What to compare.
        places: Where things are.
        lineup: Which systems answer which prompts.
        systems: Those of the configuration, and the controls that were added.
        hinting: Bundles whose frequent hints are tried as constant ones.
        spare: Prompts that are not judged, for what has to be chosen.
        references: What is known about right answers, by the prompt.
        notes: A sentence for every row that was left out.
        models: What takes part.
        identity: Names the configuration and the models; results of two identities never mix.
        loaded: The models, each loaded at its first use.
    """

    config: EvalConfig
    places: Places
    lineup: Lineup
    systems: Sequence[AnySystem]
    hinting: Sequence[str]
    spare: Sequence[str]
    references: References
    notes: tuple[str, ...]
    models: tuple[ModelUsed, ...]
    identity: str
    loaded: Loaded

    def journal(self, name: str) -> Journal:
        """A file of the folder that holds results of this evaluation only."""
        return Journal(self.places.run / name, self.identity)

    def mixed(self, count: int) -> list[str]:
        """Take that many prompts from all data sets in turn."""
        return mixed(list(self.lineup.prompts.values()))[:count]


@contextmanager
def open_evaluation(
    config: EvalConfig, places: Places, note: Callable[[str], None]
) -> Iterator[Evaluation]:
    """Start an evaluation or resume it; nobody else may use its folder inside the block.

    Args:
        config: What to compare.
        places: Where things are.
        note: Called with each progress message.

    Raises:
        InputError: The folder was started with another configuration, models or prompts.
        AlignProError: Something is missing or damaged.
    """
    places.run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(places.run / _LOCK, lambda: note("Waiting for another run.")))
        prompts = prompts_of(config, places)
        for sentence in prompts.notes:
            note(sentence)
        models = models_used(config, places)
        texts = texts_of(config, places, prompts)
        # Before the folder is claimed, so that a mistake that shows here can be corrected.
        loaded = Loaded(config, places, prompts.references, stack)
        identity = _identify(config, places.run, models, texts)
        systems = with_controls(config.system)
        yield Evaluation(
            config=config,
            places=places,
            lineup=lineup_of(config, prompts.judged, prompts.kinds, systems),
            systems=systems,
            hinting=_hinting(systems, loaded),
            spare=prompts.spare,
            references=prompts.references,
            notes=tuple(prompts.notes),
            models=models,
            identity=identity,
            loaded=loaded,
        )


def _hinting(systems: Sequence[AnySystem], loaded: Loaded) -> tuple[str, ...]:
    """The bundles that are judged and write hints; whole rewrites fit no other prompt."""
    bundles = [
        section.bundle
        for section in systems
        if isinstance(section, PrompterSystemSection | RhoStarSection)
        and not isinstance(section, ReferenceSystemSection)
    ]
    return tuple(
        bundle for bundle in dict.fromkeys(bundles) if loaded.template(bundle).mode == "augment"
    )


def _identify(
    config: EvalConfig,
    folder: Path,
    models: Sequence[ModelUsed],
    texts: Mapping[str, Sequence[object]],
) -> str:
    """Claim the folder of an evaluation, and name what its results belong to."""
    claim(folder, config)
    used = [asdict(model) for model in models]
    recorded = _recorded(folder / _MODELS, used)
    for model in used:
        if model not in recorded:
            raise InputError(
                f"The evaluation in {folder} was started with another {model['role']} "
                f"{model['name']} than {model['sha256'][:12]}.",
                "Choose another --output, or bring that model back.",
            )
    digests = {name: _digest(list(rows)) for name, rows in texts.items()}
    for name, digest in _recorded(folder / _PROMPTS, digests).items():
        if digests.get(name) != digest:
            raise InputError(
                f"The evaluation in {folder} was started with other texts of {name}.",
                "Choose another --output, or bring its file back.",
            )
    return _digest([plain(config), recorded])[:12]


def _recorded(file: Path, now: Any) -> Any:
    """What a file recorded when the evaluation began; `now` is recorded if it begins."""
    if not file.exists():
        write_text(file, json.dumps(now, indent=2) + "\n")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{file} cannot be read ({error}).", "Restore it, or choose another --output."
        ) from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
