"""From the systems of a configuration to the lineup, with the controls that it always has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from alignpro_lite.eval.config import (
    AnySystem,
    BestOfSection,
    EvalConfig,
    InstructionSection,
    PrompterSystemSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.prompter.template import RewriteTemplate

CONSTANT = "constant hint"
"""Name of the system that every prompter is compared with; a second one gets a number."""
_UNTRAINED = ReferenceSystemSection | InstructionSection | BestOfSection
"""What needs neither training nor a search over rewrites."""


def constant_systems(
    systems: Sequence[AnySystem], template_of: Callable[[str], RewriteTemplate]
) -> dict[str, PrompterSystemSection]:
    """The systems that an evaluation adds by itself: a constant hint for every prompter.

    A bundle of mode rewrite has none: what does not depend on the prompt is no rewrite of it.

    Args:
        systems: Those of the configuration.
        template_of: Gives the template of a bundle.

    Returns:
        By the name of the new system, the prompter whose hint it fixes and the data it answers.
    """
    answered: dict[str, list[tuple[str, ...]]] = {}
    for section in systems:
        if isinstance(section, ReferenceSystemSection):
            continue
        if isinstance(section, PrompterSystemSection | RhoStarSection):
            answered.setdefault(section.bundle, []).append(section.data)
    hinting = {
        bundle: data for bundle, data in answered.items() if template_of(bundle).mode == "augment"
    }
    taken = {section.name for section in systems}
    names = (CONSTANT if number == 1 else f"{CONSTANT} {number}" for number in count(1))
    free = (name for name in names if name not in taken)
    return {
        name: PrompterSystemSection(name=name, data=_union(data), bundle=bundle)
        for (bundle, data), name in zip(hinting.items(), free, strict=False)
    }


def _union(data: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The data sets that any of some systems answers; none stands for all."""
    return tuple(dict.fromkeys(name for names in data for name in names)) if all(data) else ()


def lineup_of(
    config: EvalConfig,
    prompts: Mapping[str, Sequence[str]],
    constants: Mapping[str, PrompterSystemSection],
) -> Lineup:
    """Who is compared on what.

    Args:
        config: Names the systems.
        prompts: The prompts of each data set.
        constants: The systems that are added.
    """
    data = {section.name: section.data for section in (*config.system, *constants.values())}
    untrained = [section.name for section in config.system if isinstance(section, _UNTRAINED)]
    searching = [section for section in config.system if isinstance(section, RhoStarSection)]
    return Lineup(
        prompts=prompts,
        systems={name: answered or tuple(prompts) for name, answered in data.items()},
        judges=tuple(section.name for section in config.judge),
        baseline=config.baseline,
        oracle=config.oracle.name if config.oracle else None,
        seed=config.seed,
        controls=(*untrained, *constants),
        calls={section.name: section.calls for section in searching},
    )
