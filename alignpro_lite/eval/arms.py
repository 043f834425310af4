"""From the systems of a configuration to the lineup, with the controls that it always has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from alignpro_lite.eval.config import (
    AnySystem,
    BestOfSection,
    ConstantSystemSection,
    EvalConfig,
    GivenSection,
    InstructionSection,
    NoPrompterSection,
    OracleSystemSection,
    PrompterSystemSection,
    ReadTwiceSection,
    ReferenceSystemSection,
    RhoStarSection,
    SystemSection,
)
from alignpro_lite.eval.lineup import Lineup

BASELINE = "no prompter"
"""Name of the baseline that is added where a configuration has none."""
CONSTANT = "best constant hint"
"""Name of the system of kind constant that is added."""
TWICE = "question read twice"
"""Name of the system of kind re2 that is added."""

_UNTRAINED = (
    ReferenceSystemSection
    | ReadTwiceSection
    | ConstantSystemSection
    | InstructionSection
    | BestOfSection
)
"""What needs neither training nor a search over rewrites."""
_PROMPTERS = PrompterSystemSection | RhoStarSection | GivenSection
"""What rewrites prompts, so that it has to be compared with what anybody could write."""


def with_controls(systems: Sequence[AnySystem]) -> tuple[AnySystem, ...]:
    """The systems of a configuration, and those that nobody can leave out by accident.

    A baseline is added where there is none. Where a prompter, ρ* or given rewrites are judged, so
    are the best constant hint and the question read twice, on the same data; a system of that kind
    in the configuration takes their place.
    """
    found = list(systems)
    if not any(isinstance(section, NoPrompterSection) for section in systems):
        found.insert(0, NoPrompterSection(name=_free(BASELINE, systems)))
    judged = [section.data for section in systems if isinstance(section, _PROMPTERS)]
    if not judged:
        return tuple(found)
    data = _union(judged)
    if not any(isinstance(section, ConstantSystemSection) for section in systems):
        found.append(ConstantSystemSection(name=_free(CONSTANT, systems), data=data))
    if not any(isinstance(section, ReadTwiceSection) for section in systems):
        found.append(ReadTwiceSection(name=_free(TWICE, systems), data=data))
    return tuple(found)


def _free(name: str, systems: Sequence[SystemSection]) -> str:
    """The name, with a number where the configuration gives it to another system."""
    taken = {section.name for section in systems}
    names = (name if number == 1 else f"{name} {number}" for number in count(1))
    return next(free for free in names if free not in taken)


def _union(data: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The data sets that any of some systems answers; none stands for all."""
    return tuple(dict.fromkeys(name for names in data for name in names)) if all(data) else ()


def lineup_of(
    config: EvalConfig,
    prompts: Mapping[str, Sequence[str]],
    kinds: Mapping[str, str],
    systems: Sequence[AnySystem],
) -> Lineup:
    """Who is compared on what.

    Args:
        config: Names the judges.
        prompts: The prompts of each data set.
        kinds: Kinds of prompts that their data set names.
        systems: Those of the configuration, and the controls.
    """
    return Lineup(
        prompts=prompts,
        systems={section.name: section.data or tuple(prompts) for section in systems},
        judges=tuple(section.name for section in config.judge),
        baseline=_names(systems, NoPrompterSection)[0],
        oracle=next(iter(_names(systems, OracleSystemSection)), None),
        seed=config.seed,
        controls=tuple(section.name for section in systems if isinstance(section, _UNTRAINED)),
        calls={
            section.name: section.calls
            for section in systems
            if isinstance(section, RhoStarSection)
        },
        constant=next(iter(_names(systems, ConstantSystemSection)), None),
        kinds=kinds,
    )


def _names(systems: Sequence[AnySystem], kind: type[SystemSection]) -> list[str]:
    return [section.name for section in systems if isinstance(section, kind)]
