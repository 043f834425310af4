"""Every exception of the package.

Each one is a sentence that says what was expected and what was found, followed by the command or
setting that fixes it. The command line prints both on one line and exits with 1; library users can
read `.cure` on its own.
"""

from __future__ import annotations


class AlignProError(Exception):
    """Base of all errors that a user can fix.

    Attributes:
        problem: What was expected and what was found, one sentence.
        cure: The command or setting that fixes it, one sentence.
    """

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem} {cure}")
        self.problem = problem
        self.cure = cure


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
