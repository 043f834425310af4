"""Every exception of the package.

Each one is a sentence that says what was expected and what was found, followed by the command or
setting that fixes it. The command line prints both on one line and exits with 1; library users can
read `.cure` on its own. No message shows what a URL keeps secret, whoever wrote it there.
"""

from __future__ import annotations

import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]*[^\s'\"<>`.,;:!?)\]}]")
"""A URL in a sentence, without the punctuation behind it."""


def without_secrets(text: str) -> str:
    """A text whose URLs show no user, password, query or fragment."""
    return _URL.sub(lambda found: shown_url(found[0]), text)


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


class ExportError(AlignProError):
    """An export that failed or whose result disagrees with the original model."""


class TrainingError(AlignProError):
    """A training run that cannot continue."""


class ContextOverflowError(AlignProError):
    """More tokens than the context of a model can hold."""


class DeviceError(AlignProError):
    """A device that was asked for and cannot be used, or an engine that crashed."""


class MissingDependencyError(AlignProError):
    """An optional package that is needed but not installed."""


class CancelledError(AlignProError):
    """The model was closed while its reader was still waiting."""

    def __init__(self) -> None:
        super().__init__("The model was closed during generation.", "Load it again.")
