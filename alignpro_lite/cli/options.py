"""Options that several commands share, and what they parse into."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from alignpro_lite.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.hardware.device import DeviceRequest
    from alignpro_lite.rewriting.request import Budget, Request, RhoStar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ModelOptions:
    """Which models to load and where to run them."""

    target: str
    prompter: str
    device: Literal["auto", "cuda", "cpu"]
    n_gpu_layers: int | None
    ctx: int | None
    cache: Path | None

    def devices(self) -> DeviceRequest:
        """The part about hardware."""
        from alignpro_lite.hardware.device import DeviceRequest

        return DeviceRequest(self.device, self.n_gpu_layers, self.ctx)

    def load(self, *, with_prompter: bool = True, reward: str | None = None) -> AlignedModel:
        """Load the models, after making sure that the target's engine does not crash."""
        from alignpro_lite.aligned import AlignedModel
        from alignpro_lite.doctor import ModelChoice, require_working_target

        require_working_target(ModelChoice(self.target, self.prompter, self.devices(), self.cache))
        return AlignedModel.load(
            self.target,
            self.prompter if with_prompter else None,
            reward if with_prompter else None,
            devices=self.devices(),
            cache=self.cache,
        )


@dataclass(frozen=True)
class AnswerOptions:
    """How to answer; None leaves a setting at its default."""

    system: str | None
    max_tokens: int
    stop: tuple[str, ...]
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    protect: tuple[str, ...]

    def request(self, rho_star: RhoStar) -> Request:
        """The library's request; without a seed, one is drawn and can be read from it."""
        from alignpro_lite.decoding.sampling import MAX_SEED, Sampling
        from alignpro_lite.rewriting.request import Request
        from alignpro_lite.target.target import DEFAULT_SAMPLING

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
        )


@dataclass(frozen=True)
class DrawOptions:
    """How many rewrites are tried and how one is chosen; see the library's `RhoStar`."""

    reward: str | None
    samples: int | Literal["auto"]
    strength: float | None
    answers: int
    guard: bool | None
    budget: Budget | None
    returns: Literal["scored", "fresh"]

    def settings(self) -> RhoStar:
        """The library's settings.

        Raises:
            click.UsageError: An option needs a reward and there is none.
        """
        from alignpro_lite.rewriting.request import Budget, RhoStar

        if self.reward is None:
            self._refuse_what_needs_a_reward()
        return RhoStar(
            samples=self.samples,
            strength=self.strength,
            answers=self.answers,
            guard=self.guard is not False,
            budget=self.budget or Budget(),
            returns=self.returns,
        )

    def _refuse_what_needs_a_reward(self) -> None:
        given = {
            "--samples auto": self.samples == "auto",
            "--guard": self.guard is True,
            "--lambda": self.strength is not None,
            "--budget": self.budget is not None,
        }
        for name, is_given in given.items():
            if is_given:
                raise click.UsageError(f"{name} needs a reward; pass --reward default.")


class SamplesType(click.ParamType[Any]):
    """A number of samples, or auto."""

    name = "N|auto"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"]:
        """Parse it."""
        if value == "auto":
            return "auto"
        return int(click.IntRange(min=1).convert(cast(int, value), param, ctx))


class BudgetType(click.ParamType[Any]):
    """Tokens of the target, or seconds."""

    name = "TOKENS|SECONDSs"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Budget:
        """Parse `2000` as tokens and `30s` as seconds."""
        from alignpro_lite.rewriting.request import Budget

        if isinstance(value, Budget):
            return value
        text = str(value)
        try:
            if text.endswith("s"):
                return Budget(seconds=float(text[:-1]))
            return Budget(tokens=int(text))
        except ValueError:
            self.fail(f"{text!r} is neither tokens, such as 2000, nor seconds, such as 30s.")
        except InputError as error:
            self.fail(str(error))


cache_option = click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The cache folder.  [env var: ALIGNPRO_LITE_CACHE; default: the platform's]",
)

prompter_option = click.option(
    "--prompter",
    "-p",
    default="default",
    metavar="BUNDLE|NAME",
    help="The model that rewrites: a bundle folder or a name of models.toml.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Where to run; cuda fails if there is none, auto says what it took.",
)

_MODEL_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--target",
        "-t",
        default="default",
        metavar="GGUF|NAME",
        help="The model that answers: a GGUF file or a name of models.toml.",
    ),
    prompter_option,
    device_option,
    click.option(
        "--n-gpu-layers",
        type=click.IntRange(min=-1),
        help="Layers of the target on the GPU, -1 for all.  [default: as many as fit]",
    ),
    click.option(
        "--ctx",
        type=click.IntRange(min=1),
        help="Tokens of context.  [default: what the model and the memory allow, at most 2048]",
    ),
    cache_option,
]

_ANSWER_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--system", "-s", help="System prompt for the target."),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        default=512,
        show_default=True,
        help="Most tokens of an answer.",
    ),
    click.option("--stop", multiple=True, help="Text that ends the answer; may be repeated."),
    click.option("--temperature", type=float, help="0 always takes the likeliest token."),
    click.option("--top-k", type=int, help="Sample among the k likeliest tokens."),
    click.option("--top-p", type=float, help="Sample among tokens that hold this share."),
    click.option("--min-p", type=float, help="Drop tokens this much less likely than the top one."),
    click.option("--seed", type=int, help="Repeat a run.  [default: a new one each time]"),
    click.option(
        "--protect",
        multiple=True,
        metavar="REGEX",
        help="What a rewrite must keep, besides code, URLs, paths, numbers, quotes, options and "
        "<keep>text</keep>; may be repeated.",
    ),
]

_MODEL_FIELDS = ("target", "prompter", "device", "n_gpu_layers", "ctx", "cache")
_DRAW_OPTIONS: list[Callable[[Any], Any]] = [
    click.option(
        "--reward",
        metavar="BUNDLE|NAME|module:function",
        help="What scores answers, to draw the rewrite from ρ*: a reward bundle, a name of "
        "models.toml such as default, or a Python function.",
    ),
    click.option(
        "--samples",
        type=SamplesType(),
        default=1,
        show_default=True,
        help="Rewrites to choose from. Without --reward, the one with the highest implicit reward "
        "is taken; auto draws more until the estimated distance to ρ* is small.",
    ),
    click.option(
        "--lambda",
        "strength",
        type=click.FloatRange(min=0, min_open=True),
        metavar="L",
        help="λ: near 0 takes the best rewrite, a large one stays with the untrained prompter.  "
        "[default: what the prompter was trained with]",
    ),
    click.option(
        "--answers",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        help="Trial answers to each rewrite.",
    ),
    click.option(
        "--guard/--no-guard",
        default=None,
        help="Use the rewrite only if it is better than the prompt beyond the noise.  "
        "[default: guard, if there is a reward]",
    ),
    click.option(
        "--budget",
        type=BudgetType(),
        help="What choosing may cost: tokens of the target, such as 2000, or time, such as 30s.",
    ),
    click.option(
        "--return",
        "returns",
        type=click.Choice(["scored", "fresh"]),
        default="scored",
        show_default=True,
        help="Go on from the best answer so far, or ask the target once more.",
    ),
]

_DRAW_FIELDS = ("reward", "samples", "strength", "answers", "guard", "budget", "returns")
_ANSWER_FIELDS = (
    "system",
    "max_tokens",
    "stop",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "protect",
)


def model_options(command: F) -> F:
    """Add the model options; the command gets them as one `models: ModelOptions`."""
    return _grouped(command, _MODEL_OPTIONS, "models", ModelOptions, _MODEL_FIELDS)


def answer_options(command: F) -> F:
    """Add the answer options; the command gets them as one `answer: AnswerOptions`."""
    return _grouped(command, _ANSWER_OPTIONS, "answer", AnswerOptions, _ANSWER_FIELDS)


def draw_options(command: F) -> F:
    """Add the options of a draw; the command gets them as one `drawing: DrawOptions`."""
    return _grouped(command, _DRAW_OPTIONS, "drawing", DrawOptions, _DRAW_FIELDS)


def _grouped(
    command: F,
    options: list[Callable[[Any], Any]],
    name: str,
    kind: type[Any],
    fields: tuple[str, ...],
) -> F:
    def collect(**values: Any) -> Any:  # click calls commands with keyword arguments only
        values[name] = kind(*(values.pop(field) for field in fields))
        return command(**values)

    collect.__name__ = command.__name__
    collect.__doc__ = command.__doc__
    collect.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    decorated: Any = collect
    for option in reversed(options):
        decorated = option(decorated)
    return cast(F, decorated)


def require_extra(work: str, packages: Sequence[str], extra: str) -> None:
    """Name the pip line when a package of an extra is missing.

    Args:
        work: What needs it, such as "Training".
        packages: What the extra brings, by import name.
        extra: Its name.

    Raises:
        MissingDependencyError: One of them cannot be imported.
    """
    import_module("alignpro_lite.export")  # first: it switches onnxruntime's telemetry off
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"{work} needs {error.name or package}, which is not installed.",
                f'Run `pip install "alignpro-lite[cpu,{extra}]"`.',
            ) from error


def read_prompt(argument: str | None) -> str:
    """The prompt from the argument, or from stdin when that is a file or a pipe.

    Raises:
        click.UsageError: There is neither.
        InputError: Stdin is not UTF-8.
    """
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("Pass a PROMPT, or pipe one into stdin.")
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"Stdin must be UTF-8 text, found byte 0x{raw[error.start]:02x} at {error.start}.",
            "Convert it first, for example with `iconv -t utf-8`.",
        ) from error
