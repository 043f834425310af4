"""Tables that several configurations hold: how the target is asked, what scores, which prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignpro_lite.experiment.config import Section

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


class AnswerSection(Section):
    """[answers]: how the target is sampled; the defaults are those of `run`.

    Attributes:
        count: M, answers to each rewrite.
        max_tokens: Most tokens of an answer.
        temperature: 0 takes the most likely token.
        top_k: Only that many of the likeliest tokens are drawn; 0 for all.
        top_p: Only the likeliest tokens that together have this probability are drawn.
        min_p: Tokens below this share of the likeliest one's probability are not drawn.
    """

    count: Count = 1
    max_tokens: Count = 128
    temperature: float = Field(0.8, ge=0, le=100)
    top_k: int = Field(40, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    min_p: float = Field(0.05, ge=0, lt=1)


class GgufSection(Section):
    """[target] of kind gguf: the deployed file itself, decoded in batches.

    Attributes:
        kind: Which of the three it is.
        source: A target of models.toml or a GGUF file.
        context: Tokens that all answers under way share, prompts included.
    """

    kind: Literal["gguf"] = "gguf"
    source: str = "smollm2-135m-instruct"
    context: int = Field(8192, ge=256)


class EndpointSection(Section):
    """[target] of kind openai: any OpenAI-compatible endpoint.

    Attributes:
        kind: Which of the three it is.
        url: Its base, such as http://localhost:8000/v1.
        model: The name of the model there.
        key_variable: Environment variable that holds the key; without it, none is sent.
        parallel: Requests under way at a time.
    """

    kind: Literal["openai"]
    url: str
    model: str
    key_variable: str | None = None
    parallel: Count = 8


class HuggingFaceSection(Section):
    """[target] of kind huggingface: a model run in torch, the slow way.

    Attributes:
        kind: Which of the three it is.
        source: A Hugging Face folder or a GGUF file.
        device: Of torch, such as cpu or cuda:0.
        dtype: Of the weights.
    """

    kind: Literal["huggingface"]
    source: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


TargetSection = Annotated[
    GgufSection | EndpointSection | HuggingFaceSection, Field(discriminator="kind")
]
"""[target]: one of three kinds."""


class RewardSection(Section):
    """[[reward]]: one scorer and the weights of its parts.

    Attributes:
        kind: onnx (a reward bundle), huggingface (a classifier folder), judge (a GGUF under a
            rubric) or python (package.module:function).
        source: A reward of models.toml or its folder (onnx), a folder (huggingface), a target of
            models.toml or a GGUF file (judge), or the function (python).
        weights: Weight of each named part; a judge and a function have one part each.
    """

    kind: Literal["onnx", "huggingface", "judge", "python"]
    source: str
    weights: Annotated[dict[Name, float], Field(min_length=1)]


class PromptFileSection(Section):
    """[[data.prompts]]: a file of prompts.

    Attributes:
        path: JSON lines or a JSON array, plain or gzipped; relative to the data folder.
        format: instruction (rows with an instruction and a context) or prompt (rows with a prompt).
    """

    path: str
    format: Literal["instruction", "prompt"]


class PromptDataSection(Section):
    """[data]: the prompts.

    Attributes:
        prompts: The files.
        held_out: Share of prompts, by their hash, that training never sees.
        max_prompt_tokens: Longer prompts are left out.
    """

    prompts: Annotated[tuple[PromptFileSection, ...], Field(min_length=1)]
    held_out: float = Field(0.25, gt=0, lt=1)
    max_prompt_tokens: Count = 200
