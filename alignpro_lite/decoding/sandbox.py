"""Rendering a model file's chat template, which is foreign code, without trusting it.

Jinja's own sandbox keeps a template away from Python, but not from the processor and the memory:
forty doublings of a list are a line of text, and printing it never ends. So templates are compiled
and rendered in a child interpreter that may be killed, by `rendering.py`. It stays warm between
prompts; a rendering costs less than a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignpro_lite.decoding.child import WarmChild
from alignpro_lite.errors import DeviceError, InputError, ModelFileError

RENDER_SECONDS = 5.0
"""For one template, compiled and rendered twice; honest ones take milliseconds."""
MAX_CONVERSATION = 10_000_000
"""Characters that a template is given at most."""
_CHARACTERS_A_SECOND = 1_000_000
"""A fifth of what is rendered on an old core; long conversations get more time."""
_MEMORY_BYTES = 512 << 20

_renderer = WarmChild("alignpro_lite.decoding.rendering", _MEMORY_BYTES)
"""Shared by all models of the process."""


def keep_renderer() -> None:
    """Begin to start the child process, for a model that is being opened.

    Raises:
        DeviceError: No child interpreter can be started.
    """
    try:
        _renderer.keep()
    except OSError as error:
        raise _cannot_start(error) from error


def release_renderer() -> None:
    """End the child process if no other model is open."""
    _renderer.release()


def render_template(
    template: str,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    variables: Mapping[str, object],
) -> tuple[str, tuple[tuple[int, int], ...] | None]:
    """Render a chat template up to where the assistant speaks next.

    A conversation that ends with the assistant's own turn is rendered as it is.

    Args:
        template: Jinja source, as in a model file.
        messages: Turns with `role` and `content`.
        special_tokens: Values for names such as `bos_token`.
        variables: Values for other names.

    Returns:
        The text; and where the template wrote it, as pairs (start, end), None if it makes something
        of a message that cannot be followed.

    Raises:
        ModelFileError: The template is broken, too slow or uses too much memory.
        InputError: The conversation is too long, or the template itself refuses it.
        DeviceError: No child interpreter can be started.
    """
    length = sum(
        len(said) for message in messages for key, said in message.items() if key != "role"
    )
    if length > MAX_CONVERSATION:
        raise InputError(
            f"A conversation has at most {MAX_CONVERSATION:,} characters, found {length:,}.",
            "Shorten the prompt.",
        )
    seconds = RENDER_SECONDS + length / _CHARACTERS_A_SECOND
    answered = bool(messages) and messages[-1]["role"] == "assistant"
    conversation = {"messages": [*messages], "add_generation_prompt": not answered}
    own_names = [name for name in special_tokens if name not in conversation]
    values = {**variables, **special_tokens, **conversation}
    try:
        reply = _renderer.ask([template, values, own_names], seconds)
    except TimeoutError as error:
        raise _unusable(f"it ran for more than {seconds:.3g} seconds") from error
    except ChildProcessError as error:
        raise _unusable(f"it ended the process that renders it: {error}") from error
    except OSError as error:
        raise _cannot_start(error) from error
    match reply:
        case {"text": text, "own": own}:
            return text, None if own is None else tuple((start, end) for start, end in own)
        case {"refusal": refusal}:
            raise InputError(
                f"The model's chat template refuses this conversation: {refusal}.",
                "Leave the system prompt out or use another model.",
            )
        case _:
            raise _unusable(reply["fault"])


def _unusable(reason: str) -> ModelFileError:
    return ModelFileError(
        f"The model's chat template cannot be rendered ({reason}).",
        "Use a model with a working template.",
    )


def _cannot_start(error: OSError) -> DeviceError:
    return DeviceError(
        f"Chat templates are rendered in a process of their own, which does not start ({error}).",
        "Check that `alignpro-lite doctor` works, and how many processes you may start.",
    )
