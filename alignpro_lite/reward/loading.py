"""From the description of a reward to a loaded one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta

from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.probe import ProbedModel, require_working
from alignpro_lite.errors import InputError
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import Label, Record
from alignpro_lite.reward.bundle import REWARD_BUNDLE
from alignpro_lite.reward.check import CHECK_SOURCES, CheckScorer, CheckSource
from alignpro_lite.reward.exchange import NO_REFERENCES, References
from alignpro_lite.reward.judge import PairJudge
from alignpro_lite.reward.judge_scorer import RIVALS, JudgeScorer
from alignpro_lite.reward.onnx_reward import OnnxScorer
from alignpro_lite.reward.reward import CallableScorer, Reward, Scorer
from alignpro_lite.target.choices import Chooser
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget

_FUNCTION_PART = "reward"
"""What the one part of a Python function is called if nobody names it."""
_JUDGE_PART = "judge"
JUDGE = "judge:"
"""What the name of a reward begins with that is a judge."""
TARGET = "target"
"""The judge that is the target itself, in the memory where it is loaded anyway."""
_CONTEXT = 4096
"""The most tokens of a question to a judge of its own."""
_SEQUENCES = 4
"""Two for the replies, and some that keep what the next questions begin with."""


class ScorerSource(Record):
    """One scorer of a reward and the weights of its parts; `[[reward]]` of a configuration.

    Attributes:
        kind: onnx (a reward bundle), huggingface (a classifier folder), judge (a chat model that
            compares with answers to the prompt as it is), python (package.module:function) or check
            (of the answer against the reference of its prompt).
        source: A reward of models.toml or its folder (onnx), a folder (huggingface), `target` for
            the target itself, another target of models.toml or a GGUF file (judge), the function
            (python), or exact, gsm8k, ifeval, or task for the one of these that the data of each
            prompt name (check).
        weights: Weight of each named part; a judge, a function and a check have one part each.
            Those of a reward bundle that is given by its name alone are empty: it brings its own.
    """

    kind: Literal["onnx", "huggingface", "judge", "python", "check"]
    source: str
    weights: Annotated[dict[Label, float], Meta(min_length=1)]

    def __post_init__(self) -> None:
        """Refuse a check that does not exist.

        Raises:
            InputError: Names those that do.
        """
        if self.kind == "check" and self.source not in CHECK_SOURCES:
            raise InputError(
                f"source of a check must be {', '.join(CHECK_SOURCES[:-1])} or "
                f"{CHECK_SOURCES[-1]}, found {self.source!r:.40}.",
                "Correct source.",
            )

    @property
    def is_target(self) -> bool:
        """Whether it is the target itself that judges."""
        return self.kind == "judge" and self.source == TARGET


def scorer_named(reward: str | Path) -> ScorerSource:
    """The scorer that a single name stands for.

    Args:
        reward: A reward bundle, a name of models.toml, `default`, a Python function as
            `package.module:function`, or a judge as `judge:target` or `judge:GGUF-or-name`.

    Raises:
        InputError: A judge has no name.
    """
    if isinstance(reward, str) and reward.startswith(JUDGE):
        source = reward.removeprefix(JUDGE)
        if not source:
            raise InputError(
                f"A judge is named behind {JUDGE}, found nothing there.",
                "Pass judge:target for the target itself, or judge:model.gguf.",
            )
        return ScorerSource("judge", source, {_JUDGE_PART: 1.0})
    if isinstance(reward, str) and ":" in reward and not Path(reward).exists():
        return ScorerSource("python", reward, {_FUNCTION_PART: 1.0})
    return ScorerSource("onnx", str(reward), {})


def open_reward(
    sources: Iterable[ScorerSource],
    store: ModelStore,
    threads: int,
    references: References = NO_REFERENCES,
    target: Chooser | None = None,
    watch: LoadWatch | None = None,
) -> Reward:
    """Load scorers as one weighted sum of their parts.

    Args:
        sources: The scorers; their parts have different names.
        store: Where models are.
        threads: CPU threads of each.
        references: What is known about right answers to the prompts.
        target: What a judge called `target` is; None where its weights are not loaded here.
        watch: May cancel it.

    Raises:
        CancelledError: The watcher has cancelled it.
        InputError: There is a check, and no reference or one that it cannot use.
        RegistryError: A name is unknown or its model is not installed.
        InputError: There is no target that could judge.
        AlignProError: A scorer is missing or damaged, or has other parts than are weighted.
    """
    watch = watch or LoadWatch()
    scorers: list[Scorer] = []
    weights: dict[str, float] = {}
    rivals = 0
    with ExitStack() as closing:  # what did load must not outlive the failure of another one
        for source in sources:
            scorer, own = _open_scorer(source, _Opening(store, threads, references, target, watch))
            closing.callback(scorer.close)
            scorers.append(scorer)
            weights |= source.weights or own
            rivals = RIVALS if source.kind == "judge" else rivals
        reward = Reward(scorers, weights, rivals, references)
        closing.pop_all()
    return reward


@dataclass(frozen=True)
class _Opening:
    """What scorers are opened with; see `open_reward`."""

    store: ModelStore
    threads: int
    references: References
    target: Chooser | None
    watch: LoadWatch


def open_judge(
    source: str,
    name: str,
    store: ModelStore,
    threads: int,
    target: Chooser | None,
    watch: LoadWatch | None = None,
) -> PairJudge:
    """Load a judge of pairs on the CPU, after a probe, or let the target judge.

    Args:
        source: `target`, a target of models.toml, or a GGUF file.
        name: What to call it.
        store: Where models are.
        threads: CPU threads of a judge of its own.
        target: The loaded target; None where its weights are not loaded here.
        watch: May cancel it.

    Raises:
        CancelledError: The watcher has cancelled it.
        InputError: There is no target that could judge.
        RegistryError: A name is unknown or its model is not installed.
        ModelFileError: The file is not a model that generates text, or is damaged.
        DeviceError: There is not enough memory.
    """
    if source != TARGET:
        path = store.path("target", source)
        return PairJudge(_load(path, store, threads, watch or LoadWatch()), name)
    if target is None:
        raise InputError(
            "The target can judge where its weights are loaded here, found one behind an address.",
            "Name another judge, such as judge:model.gguf, or a target of kind gguf or "
            "huggingface.",
        )
    return PairJudge(target, name, is_shared=True)


def _load(path: Path, store: ModelStore, threads: int, watch: LoadWatch) -> LlamaTarget:
    file = read_header(path)
    require_text_generation(file)
    # Beyond the trained context some architectures have no positions, and llama.cpp aborts.
    fitting = min(_CONTEXT, file.context_length)
    settings = TargetSettings(fitting, _SEQUENCES, n_gpu_layers=0, gpu=None, threads=threads)
    probed = ProbedModel("target", path, "cpu", asdict(settings))
    require_working(probed, store.cache, watch.cancellation)
    return LlamaTarget(path, file, settings, watch)


def _open_scorer(source: ScorerSource, opening: _Opening) -> tuple[Scorer, Mapping[str, float]]:
    """A scorer and the weights that it brings itself."""
    store, threads, watch = opening.store, opening.threads, opening.watch
    match source.kind:
        case "onnx":
            folder = store.path("reward", source.source)
            sidecar = REWARD_BUNDLE.open(folder)
            probed = ProbedModel("reward", folder, "cpu", {"threads": threads})
            require_working(probed, store.cache, watch.cancellation)
            return OnnxScorer(folder, sidecar.model, threads, watch), sidecar.weights
        case "huggingface":
            import alignpro_lite.pretrained  # noqa: F401 - first: it keeps the hub out
            from alignpro_lite.reward.classifier import HfScorer

            return HfScorer(Path(source.source), tuple(source.weights)), {}
        case "judge":
            part = _only_part(source)
            judge = open_judge(source.source, part, store, threads, opening.target, watch)
            return JudgeScorer(judge), {}
        case "python":
            return CallableScorer(source.source, _only_part(source)), {}
        case "check":
            check = cast(CheckSource, source.source)
            return CheckScorer(check, _only_part(source), opening.references), {}


def _only_part(source: ScorerSource) -> str:
    if len(source.weights) == 1:
        return next(iter(source.weights))
    raise InputError(
        f"A reward of kind {source.kind} has one part, found {len(source.weights)} weights.",
        "Give each function, judge or check a [[reward]] of its own.",
    )
