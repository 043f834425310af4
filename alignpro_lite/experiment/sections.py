"""Tables that several configurations hold: which target, which prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.prompts import OWN_REFERENCE, PromptFormat
from alignpro_lite.registry.record import Count, NonEmpty, Record
from alignpro_lite.target.endpoint import require_plain_address

TwoOrMore = Annotated[int, Meta(ge=2)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]


class GgufSection(Record, tag_field="kind", tag="gguf"):
    """[target] of kind gguf: the deployed file itself, decoded in batches.

    Attributes:
        source: A target of models.toml or a GGUF file; `default` is that of the preset.
        context: Tokens that a prompt and its answer may have. Answers that are decoded together
            share room for as many or more.
    """

    source: str = "default"
    context: Annotated[int, Meta(ge=256)] = 8192


class EndpointSection(Record, tag_field="kind", tag="openai"):
    """[target] of kind openai: any OpenAI-compatible endpoint.

    Attributes:
        url: Base URL, such as http://localhost:8000/v1.
        model: Name of the model there.
        key_variable: Environment variable that holds the key; without it, none is sent.
        parallel: Requests sent at a time.
    """

    url: str
    model: str
    key_variable: str | None = None
    parallel: Count = 8

    def __post_init__(self) -> None:
        """Refuse an address with a password before a run records its configuration.

        Raises:
            InputError: See `require_plain_address`.
        """
        require_plain_address(self.url)


class HuggingFaceSection(Record, tag_field="kind", tag="huggingface"):
    """[target] of kind huggingface: a model in torch, which is slow on a CPU.

    Attributes:
        source: A target of models.toml, a Hugging Face folder or a GGUF file.
        device: Device of torch, such as cpu or cuda:0.
        dtype: Type of the weights.
        rows: Answers that are decoded together, and questions to a judge that are read together.
    """

    source: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    rows: Count = 16


TargetSection = GgufSection | EndpointSection | HuggingFaceSection
"""[target]: one of three kinds."""


class PromptFileSection(Record):
    """A file of prompts.

    Attributes:
        path: JSON, JSON lines, CSV or Parquet, plain or gzipped; relative to the data folder.
        format: instruction (rows with an instruction and a context), prompt (rows with a prompt),
            or gsm8k or ifeval (as published, with references).
        reference: Key of the right answer in a row, for rewards of kind check.
    """

    path: str
    format: PromptFormat
    reference: NonEmpty | None = None

    def __post_init__(self) -> None:
        """Refuse a key for a format that has its own.

        Raises:
            InputError: Names both.
        """
        if self.reference is not None and self.format in OWN_REFERENCE:
            raise InputError(
                f"format {self.format} says itself where the reference is, found reference = "
                f"{self.reference!r}.",
                "Remove reference.",
            )


class PromptSourceSection(PromptFileSection):
    """[[data.prompts]]: a file of prompts.

    Attributes:
        most: The most rows that are taken, the first ones; left out, all. Every row counts once,
            so that a long file would crowd out a short one.
    """

    most: Count | None = None


class PromptDataSection(Record):
    """[data]: the prompts.

    Attributes:
        prompts: The files.
        held_out: Share of prompts, by their hash, that training never sees.
        max_prompt_tokens: Longer prompts are left out.
    """

    prompts: Annotated[tuple[PromptSourceSection, ...], Meta(min_length=1)]
    held_out: Annotated[float, Meta(gt=0, lt=1)] = 0.25
    max_prompt_tokens: Count = 200
