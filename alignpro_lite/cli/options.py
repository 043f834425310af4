"""Options that several commands share, and what they are parsed into."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from alignpro_lite.errors import InputError
from alignpro_lite.registry.text import decode_input

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.decoding.thinking import Thinking
    from alignpro_lite.hardware.device import DeviceRequest
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.registry.storage import Progress
    from alignpro_lite.rewriting.request import Budget, Guard, Request, RhoStar


@dataclass(frozen=True)
class ModelOptions:
    """Which models to load and where to run them."""

    preset: str
    target: str
    prompter: str
    device: Literal["auto", "gpu", "cuda", "cpu"]
    n_gpu_layers: int | None
    ctx: int | None
    cache: Path | None

    def devices(self, conversations: int = 1) -> DeviceRequest:
        """What these options ask of the hardware, where so many conversations run together."""
        from alignpro_lite.hardware.device import DeviceRequest

        return DeviceRequest(self.device, self.n_gpu_layers, self.ctx, conversations)

    def open_store(self) -> ModelStore:
        """The models by name."""
        from alignpro_lite.registry import ModelStore

        return ModelStore.open(self.cache, self.preset)

    def load(
        self, *, with_prompter: bool = True, reward: str | None = None, conversations: int = 1
    ) -> AlignedModel:
        """Load the models; only what takes long on first use is shown, and not each loading."""
        from alignpro_lite.aligned import AlignedModel
        from alignpro_lite.cli.meter import Meter

        with Meter() as meter:

            def show(progress: Progress) -> None:
                if progress.stage == "assembling":
                    meter(progress)

            return AlignedModel.load(
                self.target,
                self.prompter if with_prompter else None,
                reward if with_prompter else None,
                models=self.preset,
                devices=self.devices(conversations),
                cache=self.cache,
                on_progress=show,
            )


@dataclass(frozen=True)
class AnswerOptions:
    """How to answer; None means the default."""

    system: str | None
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    seed: int | None
    protect: tuple[str, ...]
    thinking: Thinking

    def request(self, rho_star: RhoStar) -> Request:
        """The library's request; without --seed it gets a random seed."""
        from alignpro_lite.decoding.penalties import Penalties
        from alignpro_lite.decoding.sampling import MAX_SEED, Sampling
        from alignpro_lite.rewriting.request import Request
        from alignpro_lite.target.question import DEFAULT_SAMPLING

        usual = DEFAULT_SAMPLING
        sampling = Sampling(
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_k=usual.top_k if self.top_k is None else self.top_k,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            min_p=usual.min_p if self.min_p is None else self.min_p,
            seed=secrets.randbelow(MAX_SEED) if self.seed is None else self.seed,
        )
        return Request(
            system=self.system,
            max_tokens=self.max_tokens,
            stop=self.stop,
            sampling=sampling,
            protect=self.protect,
            rho_star=rho_star,
            thinking=self.thinking,
            penalties=Penalties(self.presence_penalty, self.frequency_penalty, self.repeat_penalty),
        )


@dataclass(frozen=True)
class DrawOptions:
    """How many rewrites are tried and how one is chosen; see the library's `RhoStar`."""

    reward: str | None
    samples: int | Literal["auto"]
    strength: float | None
    answers: int
    guard: Guard | None
    budget: Budget | None
    returns: Literal["scored", "fresh"]

    def settings(self) -> RhoStar:
        """The library's settings.

        Raises:
            click.UsageError: An option needs --reward, which is missing.
        """
        from alignpro_lite.rewriting.request import Budget, RhoStar

        if self.reward is None:
            self._refuse_what_needs_a_reward()
        return RhoStar(
            samples=self.samples,
            strength=self.strength,
            answers=self.answers,
            guard=self.guard or RhoStar.guard,
            budget=self.budget or Budget(),
            returns=self.returns,
        )

    def _refuse_what_needs_a_reward(self) -> None:
        given = {
            "--samples auto": self.samples == "auto",
            "--guard": self.guard is not None,
            "--lambda": self.strength is not None,
            "--budget": self.budget is not None,
        }
        for name, is_given in given.items():
            if is_given:
                raise click.UsageError(f"{name} needs a reward; add --reward default.")


def _parse_samples(value: str) -> int | Literal["auto"]:
    """`auto`, or a number from 1."""
    if value == "auto":
        return "auto"
    return int(click.IntRange(min=1).convert(cast(Any, value), None, None))


def _parse_budget(value: str) -> Budget:
    """`2000` as tokens of the target, `30s` as seconds."""
    from alignpro_lite.rewriting.request import Budget

    try:
        if value.endswith("s"):
            return Budget(seconds=float(value[:-1]))
        return Budget(tokens=int(value))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is neither tokens, such as 2000, nor seconds, such as 30s."
        ) from error
    except InputError as error:
        raise click.BadParameter(str(error)) from error


class _Text(click.types.StringParamType):
    """Text of the command line, in UTF-8 whatever the locale."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Decode the bytes that the shell passed, which Python decoded by the locale."""
        return decode_input(os.fsencode(value), "An argument")


UTF8_TEXT = _Text()

cache_option = click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The cache folder.  [env var: ALIGNPRO_LITE_CACHE; default: the platform's]",
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="What relative data paths start from.  [default: the folder of --config]",
)
preset_option = click.option(
    "--models",
    "preset",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Models that belong together: a preset of models.toml. A model that is named by an option "
    "of its own replaces the one of the preset.",
)
prompter_option = click.option(
    "--prompter",
    "-p",
    default="default",
    metavar="BUNDLE|NAME|self",
    help="The model that rewrites prompts: a bundle folder or a name from models.toml; or self, "
    "the target's own weights, which takes no more memory: self:rewrite replaces prompts instead "
    "of adding a hint, self+LORA.gguf adds what an adapter was trained to do.",
)
target_option = click.option(
    "--target",
    "-t",
    default="default",
    metavar="GGUF|NAME|hf:...",
    help="The model that answers: a GGUF file, a name from models.toml, or a pulled model of a "
    "hub as hf:owner/repo:Q4_K_M.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to run. auto uses the GPU if it can and says why if it cannot; cuda fails instead.",
)


show_thinking_option = click.option(
    "--show-thinking", is_flag=True, help="Show on stderr what the target thinks, dimmed."
)


def grouped(
    name: str, group: type[Any], *options: Callable[[Any], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options whose values reach the command as the fields of one dataclass."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collect(**values: Any) -> Any:  # click calls commands with keyword arguments only
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
            return command(**values)

        return add_options(collect, options)

    return add


def add_options(
    command: Callable[..., Any], options: Sequence[Callable[[Any], Any]]
) -> Callable[..., Any]:
    """Add options to a command, the first one first in its help."""
    for option in reversed(options):
        command = option(command)
    return command


model_options = grouped(
    "models",
    ModelOptions,
    preset_option,
    target_option,
    prompter_option,
    click.option(
        "--device",
        type=click.Choice(["auto", "gpu", "cuda", "cpu"]),
        default="auto",
        show_default=True,
        help="Where to run. auto uses a GPU if llama.cpp finds one and says why if not; gpu and "
        "cuda fail instead, cuda also if the prompter cannot use it.",
    ),
    click.option(
        "--n-gpu-layers",
        type=click.IntRange(min=-1),
        help="Layers of the target to put on the GPU, -1 for all.  [default: as many as fit]",
    ),
    click.option(
        "--ctx",
        type=click.IntRange(min=1),
        help="Tokens that a conversation and its answer may have. Answers written together share "
        "what they begin with, and room for this many tokens or more.  [default: 2048 or more, by "
        "model and memory]",
    ),
    cache_option,
)
"""Adds the options of the models, which reach the command as `models: ModelOptions`."""

answer_options = grouped(
    "answer",
    AnswerOptions,
    click.option("--system", "-s", type=UTF8_TEXT, help="System prompt for the target."),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        default=512,
        show_default=True,
        help="The most tokens of an answer, of its thought too.",
    ),
    click.option(
        "--stop", type=UTF8_TEXT, multiple=True, help="Text that ends the answer; may be repeated."
    ),
    click.option(
        "--temperature",
        type=float,
        show_default="0.8",
        help="0 always takes the most likely token.",
    ),
    click.option(
        "--top-k",
        type=int,
        show_default="40",
        help="Sample from the k most likely tokens; 0 for all.",
    ),
    click.option(
        "--top-p",
        type=float,
        show_default="0.95",
        help="Sample from the most likely tokens with this total probability.",
    ),
    click.option(
        "--min-p",
        type=float,
        show_default="0.05",
        help="Drop tokens less likely than this share of the most likely one.",
    ),
    click.option(
        "--presence-penalty",
        type=float,
        default=0.0,
        metavar="P",
        help="Make tokens that are in the answer already less likely, -2 to 2.",
    ),
    click.option(
        "--frequency-penalty",
        type=float,
        default=0.0,
        metavar="P",
        help="The same, as often as they are there.",
    ),
    click.option(
        "--repeat-penalty",
        type=float,
        default=1.0,
        metavar="P",
        help="The same as llama.cpp does it; above 1 makes repetition less likely.",
    ),
    click.option("--seed", type=int, help="Repeats a run.  [default: a new seed each time]"),
    click.option(
        "--protect",
        type=UTF8_TEXT,
        multiple=True,
        metavar="REGEX",
        help="Text that a rewrite must keep, in addition to code, URLs, paths, numbers, quotes, "
        "options and <keep>text</keep>; may be repeated.",
    ),
    click.option(
        "--thinking",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Whether a target that reasons thinks before it answers; auto leaves it to the "
        "target's chat template.",
    ),
)
"""Adds the options of the answer, which reach the command as `answer: AnswerOptions`."""

draw_options = grouped(
    "drawing",
    DrawOptions,
    click.option(
        "--reward",
        metavar="BUNDLE|NAME|module:function|judge:target",
        help="Choose the rewrite by answers that this scores: a reward bundle, a name from "
        "models.toml such as default, a Python function, or a judge that compares them with "
        "answers to your own prompt: judge:target is the target itself, judge:GGUF or judge:NAME "
        "another model.",
    ),
    click.option(
        "--samples",
        type=_parse_samples,
        default="1",
        show_default=True,
        metavar="N|auto",
        help="How many rewrites to choose from. Without --reward, the highest implicit reward "
        "wins. auto draws more until the estimated distance to ρ* is small.",
    ),
    click.option(
        "--lambda",
        "strength",
        type=click.FloatRange(min=0, min_open=True),
        metavar="L",
        help="λ of draws from ρ* (--guard strict or off): near 0 picks the best rewrite, a large λ "
        "follows the untrained prompter.  "
        "[default: the value that the prompter was trained with]",
    ),
    click.option(
        "--answers",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        help="Trial answers to each rewrite.",
    ),
    click.option(
        "--guard",
        type=click.Choice(["strict", "balanced", "off"]),
        help="balanced: the best rewrite in a race, if it is expected to score higher than your "
        "prompt; strict: a draw from ρ*, if that is certain to 95 %; off: a draw from ρ*, always.  "
        "[default: balanced, if there is a reward]",
    ),
    click.option(
        "--budget",
        type=_parse_budget,
        metavar="TOKENS|SECONDSs",
        help="What the choice may cost: tokens of the target, such as 2000, or time, such as 30s.",
    ),
    click.option(
        "--return",
        "returns",
        type=click.Choice(["scored", "fresh"]),
        default="scored",
        show_default=True,
        help="scored continues the best trial answer; fresh asks the target once more.",
    ),
)
"""Adds the options of the draw, which reach the command as `drawing: DrawOptions`."""


def read_prompt(argument: str | None) -> str:
    """The prompt from the argument, or from stdin when that is a file or a pipe.

    Raises:
        click.UsageError: Neither is given.
        InputError: Stdin is not UTF-8.
    """
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("Pass a PROMPT, or pipe one into stdin.")
    return decode_input(sys.stdin.buffer.read(), "Stdin").strip("\r\n")
