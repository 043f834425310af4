"""Whether a constraint can be kept: tried in a child process, because a hostile one may never end.

Twenty patterns that must all match are a line of JSON, and whether any string does may take longer
than anybody waits. What passes here begins within milliseconds, and each token of it is bounded by
llguidance itself.
"""

from __future__ import annotations

from functools import lru_cache

from alignpro_lite.decoding.child import WarmChild
from alignpro_lite.decoding.constraint import Constraint, JsonSchema
from alignpro_lite.decoding.json_schema import schema_text
from alignpro_lite.errors import DeviceError, InputError

CHECK_SECONDS = 5.0
"""For one constraint; honest ones take milliseconds."""
_MEMORY_BYTES = 1 << 30
_REMEMBERED = 256

_checker = WarmChild("alignpro_lite.decoding.trial_guide", _MEMORY_BYTES)


def require_keepable(constraint: Constraint) -> None:
    """Refuse a constraint that an answer cannot be held to, before anything is decoded.

    Raises:
        InputError: Says what cannot be kept: the keyword of a schema, the line of a grammar.
        DeviceError: No child interpreter can be started.
    """
    if isinstance(constraint, JsonSchema):
        problem = _problem("schema", schema_text(constraint.schema))
    else:
        problem = _problem("grammar", constraint.text)
    if problem is not None:
        raise InputError(*problem)


@lru_cache(_REMEMBERED)
def _problem(kind: str, text: str) -> tuple[str, str] | None:
    """What is wrong with a constraint and what can be done; None if nothing is.

    What depends on how busy the machine is is raised, and so not remembered.
    """
    try:
        _checker.keep()
        try:
            found = _checker.ask([kind, text], CHECK_SECONDS)
        finally:
            _checker.release()
    except TimeoutError as error:
        raise _too_complex(f"checking it took more than {CHECK_SECONDS:g} seconds") from error
    except ChildProcessError as error:
        raise _too_complex(f"it ended the process that checks it ({error})") from error
    except OSError as error:
        raise DeviceError(
            f"Constraints are checked in a process of their own, which does not start ({error}).",
            "Check that `alignpro-lite doctor` works, and how many processes you may start.",
        ) from error
    return None if found is None else (found[0], found[1])


def _too_complex(reason: str) -> InputError:
    return InputError(
        f"The constraint on the answer is too complex: {reason}.",
        "Simplify it, or try again while the machine is less busy.",
    )
