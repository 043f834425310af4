"""Every exception of the package.

Each one is a sentence that says what was expected and what was found, followed by the command or
setting that fixes it. The command line prints both on one line and exits with 1; library users can
read `.cure` on its own. No message shows what a URL keeps secret, whoever wrote it there.
"""

from __future__ import annotations

import re

_URL = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://\S+")
"""A URL in a sentence, with what follows it up to a space."""
_QUOTES = "'\"<>`"
_PUNCTUATION = ".,;:!?)]}"


def without_secrets(text: str) -> str:
    """A text whose URLs show no user, password, query or fragment."""
    return _URL.sub(_without_secrets, text)


def _without_secrets(found: re.Match[str]) -> str:
    """A URL ends at a quotation mark, unless that is in what may be secret."""
    url = found[0].rstrip(_QUOTES + _PUNCTUATION)
    if not re.search("[@?#]", url):
        url = re.split(f"[{_QUOTES}]", url, maxsplit=1)[0]
    return shown_url(url) + found[0][len(url) :]


def shown_url(url: str) -> str:
    """A URL without what may be secret: user, password, query, fragment.

    A password may hold an unquoted `/`, `?`, `#` or `@`. Where it cannot be told from the rest,
    nothing behind the scheme is shown.
    """
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    rest = rest[authority.rfind("@") + 1 :] if slashes else rest
    return scheme + slashes + ("***" if "@" in rest else re.split("[?#]", rest, maxsplit=1)[0])


class AlignProError(Exception):
    """Base of all errors that a user can fix.

    Attributes:
        problem: What was expected and what was found, one sentence.
        cure: The command or setting that fixes it, one sentence.
    """

    def __init__(self, problem: str, cure: str) -> None:
        self.problem = without_secrets(problem)
        self.cure = without_secrets(cure)
        super().__init__(f"{self.problem} {self.cure}")


class InputError(AlignProError):
    """A prompt, option or data file that cannot be used."""


class ModelFileError(AlignProError):
    """A model file that is missing, damaged or of the wrong kind."""


class BundleError(AlignProError):
    """A bundle, or the card of an adapter, that is incomplete, altered or of an unknown format."""


class RewardError(AlignProError):
    """A reward that failed or returned something that is not a score."""


class RegistryError(AlignProError):
    """A models.toml, cache or download that cannot be used."""


class DiskSpaceError(RegistryError):
    """A disk without room for what is to be written."""


class ExportError(AlignProError):
    """An export that failed or whose result disagrees with the original model."""


class TrainingError(AlignProError):
    """A training run that cannot continue."""


class ContextOverflowError(AlignProError):
    """More tokens than the context of a model can hold."""


class NoAnswerError(AlignProError):
    """A target that thought and came to no answer."""


class DeviceError(AlignProError):
    """A device that was asked for and cannot be used, or an engine that crashed."""


class MissingDependencyError(AlignProError):
    """A package that is needed and is not installed, or does not work."""


class CancelledError(AlignProError):
    """What was waited for was stopped: the model was closed meanwhile, or its loading cancelled."""

    def __init__(
        self,
        problem: str = "The model was closed during generation.",
        cure: str = "Load it again.",
    ) -> None:
        super().__init__(problem, cure)


def error_named(kind: str, problem: str, cure: str) -> AlignProError:
    """The error of another process, by the name of its class; see `AlignProError`."""
    named: type[AlignProError] = globals()[kind] if kind in _kinds() else AlignProError
    error = named.__new__(named)
    AlignProError.__init__(error, problem, cure)
    return error


def _kinds() -> set[str]:
    return {
        name
        for name, value in globals().items()
        if isinstance(value, type) and issubclass(value, AlignProError)
    }


_LONGEST_LINE = 320
_LONGEST_REASON = 800
_TAIL_LINES = 3
_TRACEBACK = "Traceback (most recent call last):"
_CAUSED = "The above exception was the direct cause of the following exception:"
_MET = "During handling of the above exception, another exception occurred:"
_IGNORED = "Exception ignored in"


def reason_of(error: BaseException) -> str:
    """What a foreign exception says, and what caused it, in one line of bounded length.

    All its lines count: torch, peft and transformers name what differs after the first.
    """
    return _in_one_line(_said(error))


def reason_in(log: str) -> str:
    """What a failed program wrote of its failure, in one line of bounded length.

    That is its last exception, with all lines of the message and with what caused it. Of a program
    that wrote none it is the last lines; empty if it wrote nothing.
    """
    before, *tracebacks = log.split(_TRACEBACK)
    raised: list[tuple[str, bool]] = []
    for traceback in tracebacks:
        # Python also writes of objects that fail while it ends: that is not the failure.
        if not "".join(before.strip().splitlines()[-1:]).startswith(_IGNORED):
            raised.append((_message(traceback), _CAUSED in traceback))
        before = traceback
    if not raised:
        return _in_one_line("\n".join(log.strip().splitlines()[-_TAIL_LINES:]))
    said = raised[-1][0]
    if len(raised) > 1 and raised[-2][1]:
        said += f";\ncaused by {raised[-2][0]}"
    return _in_one_line(said)


def _said(error: BaseException) -> str:
    name, text, cause = type(error).__name__, str(error), error.__cause__
    said = f"{name}: {text}" if text.strip() else name
    return said if cause is None or str(cause) in text else f"{said};\ncaused by {_said(cause)}"


def _message(traceback: str) -> str:
    """What follows the frames of a traceback."""
    for end in (_CAUSED, _MET, _IGNORED):
        traceback = traceback.split(end)[0]
    lines = traceback.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(" ")):
        del lines[0]
    return "\n".join(lines)


def _in_one_line(text: str) -> str:
    """The lines of a text as one.

    Long lines lose their middle, and long texts what is between the first lines and the last.
    """
    lines = [_shortened(" ".join(line.split())) for line in text.splitlines() if line.strip()]
    kept = lines[:1]
    room = _LONGEST_REASON - sum(map(len, lines[:1] + lines[1:][-1:]))
    for line in lines[1:-1]:
        room -= len(line)
        if room < 0:
            kept.append(f"(and {len(lines) - len(kept) - 1} more lines)")
            break
        kept.append(line)
    return " ".join(kept + lines[1:][-1:]).rstrip(".")


def _shortened(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    end = _LONGEST_LINE // 3
    return f"{line[: _LONGEST_LINE - end]} ... {line[-end:]}"
