"""What eval.toml may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.eval.lineup import ALL
from alignpro_lite.experiment.sections import (
    GgufSection,
    PromptFileSection,
    Seed,
    TargetSection,
    TwoOrMore,
)
from alignpro_lite.registry.record import Count, Label, NonEmpty, Positive, Record
from alignpro_lite.reward.loading import ScorerSource
from alignpro_lite.rewriting.request import Guard, Returns, RhoStar
from alignpro_lite.target.rollout import AnswerPlan

SystemName = Annotated[str, Meta(max_length=40, pattern=r"^[^|\x00-\x1f]+\Z")]


class DataSetSection(PromptFileSection, kw_only=True):
    """[[data]]: a set of prompts.

    Attributes:
        name: What the report calls it.
        part: held_out takes only prompts that training never sees, all takes every one.
        prompts: The most prompts that are used.
        kind_key: Key of a row that names the kind of its prompt, for the table by kind; where it is
            left out, or a row has none, rules decide (docs/evaluation.md).
    """

    name: Label
    part: Literal["held_out", "all"] = "held_out"
    prompts: TwoOrMore = 50
    kind_key: NonEmpty | None = None


class JudgeSection(Record):
    """[[judge]]: a reward that scores every answer, against the original prompt.

    Attributes:
        name: What the report calls it. The first judge is the one that was optimised.
        reward: Its parts, as [[reward]] of prompter.toml.
    """

    name: Label
    reward: Annotated[tuple[ScorerSource, ...], Meta(min_length=1)]


class PairJudgeSection(Record):
    """[pair_judge]: a chat model that is shown two answers, in both orders.

    Attributes:
        source: A target of models.toml, a GGUF file, or `target` for the target itself.
    """

    source: str


class SystemSection(Record, tag_field="kind"):
    """What every system has.

    Attributes:
        name: What the report calls it.
        data: Data sets that it answers; none for all.
    """

    name: SystemName
    data: tuple[Label, ...] = ()


class NoPrompterSection(SystemSection, tag="none"):
    """[[system]] of kind none: the prompt as it is."""


class PrompterSystemSection(SystemSection, tag="prompter"):
    """[[system]] of kind prompter: a bundle as users run it, ρ_θ, with a rewrite for every answer.

    Attributes:
        bundle: A bundle of models.toml or a folder.
    """

    bundle: str = "default"


class ReadTwiceSection(SystemSection, tag="re2"):
    """[[system]] of kind re2: the prompt twice, RE2; added by itself where a prompter is judged."""


class ConstantSystemSection(SystemSection, tag="constant"):
    """[[system]] of kind constant: the best constant hint; added by itself like re2."""


class ReferenceSystemSection(PrompterSystemSection, tag="reference"):
    """[[system]] of kind reference: the untrained ρ_sft, drawn as the bundle draws ρ_θ."""


class RhoStarSection(SystemSection, tag="rho_star"):
    """[[system]] of kind rho_star: draws from ρ*, see docs/sampling.md.

    Attributes:
        bundle: A bundle of models.toml or a folder.
        samples: N, candidates.
        strength: λ; without it, the one the prompter was trained with.
        trials: M, trial answers to each candidate.
        trial_tokens: The most tokens of a trial: an answer is judged by its beginning, as in `run`.
        guard: off and strict draw from ρ*, balanced lets the rewrites race instead; see `run`.
        returns: fresh draws one rewrite a prompt and answers it anew, which is ρ* and nothing else;
            scored does what `run` does for every answer: it draws a rewrite, and continues the best
            of its trials.
    """

    bundle: str = "default"
    samples: Count = 8
    strength: Positive | None = None
    trials: Count = 2
    trial_tokens: Count = RhoStar.trial_tokens
    guard: Guard = "off"
    returns: Returns = "fresh"

    @property
    def calls(self) -> int:
        """Answers that the target gives for one that is delivered, those of the guard included."""
        judging = RhoStar.guard_answers if self.guard != "off" else 0
        raw = judging or self.trials
        delivered = 1 if self.returns == "fresh" else 0
        return self.samples * self.trials + raw + judging + delivered


class BestOfSection(SystemSection, tag="best_of"):
    """[[system]] of kind best_of: the best of several answers to the prompt, by the first judge.

    Attributes:
        samples: Answers of which the best is taken.
    """

    samples: TwoOrMore = 4


class InstructionSection(SystemSection, tag="instruction", kw_only=True):
    """[[system]] of kind instruction: a fixed text before every prompt.

    Attributes:
        text: Goes before the prompt, with a blank line between them.
    """

    text: NonEmpty


class GivenSection(SystemSection, tag="given", kw_only=True):
    """[[system]] of kind given: rewrites that were made elsewhere, such as BPO's.

    Attributes:
        data: Data sets that it answers; none for all. Every prompt of them needs a rewrite.
        path: JSON, JSON lines, CSV or Parquet, plain or gzipped; relative to the data folder.
        prompt_key: Key of x in a row.
        rewrite_key: Key of x' in a row.
    """

    path: str
    prompt_key: str = "prompt"
    rewrite_key: str = "optimized_prompt"


class OracleSystemSection(SystemSection, tag="oracle", kw_only=True):
    """[[system]] of kind oracle: the target itself, aligned by `train oracle`.

    Attributes:
        source: A GGUF file, or a target of models.toml.
        context: Tokens that a prompt and its answer may have. Answers that are decoded together
            share room for as many or more.
    """

    source: str
    context: Annotated[int, Meta(ge=256)] = 8192


AnySystem = (
    NoPrompterSection
    | PrompterSystemSection
    | ReferenceSystemSection
    | ReadTwiceSection
    | ConstantSystemSection
    | RhoStarSection
    | BestOfSection
    | InstructionSection
    | GivenSection
    | OracleSystemSection
)


class ConstantSection(Record):
    """[constant]: how the best constant hint is chosen, on prompts that are not judged.

    Attributes:
        hints: TOML file of the hints to try, relative to the data folder; left out, those of the
            package. The prompters' own most frequent hints are tried too.
        prompts: Files of the prompts to choose on; without any, the training prompts of [[data]].
            Prompts that are judged are left out of them.
        first_round: Prompts that each hint answers in the first round. The best third then answers
            twice as many others, and so on: in all, about twice this number for each hint.
    """

    hints: str | None = None
    prompts: tuple[PromptFileSection, ...] = ()
    first_round: Count = 8

    def file(self, data: Path) -> Path | None:
        """The file of hints, None for those of the package."""
        return None if self.hints is None else data / self.hints


class DialSection(Record):
    """[dial]: reward against KL as λ moves, for sampling and for the adapter.

    Attributes:
        bundle: A bundle of models.toml or a folder.
        prompts: How many prompts, taken from all data sets in turn.
        samples: Candidates of each prompt.
        trials: Trial answers to each candidate; one half chooses, the other half judges.
        strengths: λ, from the weakest to the strongest KL term.
        gates: Factors of the adapter: 0 is ρ_sft, 1 is ρ_θ.
    """

    bundle: str = "default"
    prompts: TwoOrMore = 24
    samples: TwoOrMore = 8
    trials: Annotated[int, Meta(ge=2, le=16, multiple_of=2)] = 4
    strengths: tuple[Positive, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    gates: tuple[Annotated[float, Meta(ge=0, le=4)], ...] = (0.25, 0.5, 0.75, 1.0, 1.25)


class BoundSection(Record):
    """[bound]: what `eval bound` measures of theorem 6.1.

    Attributes:
        bundle: A bundle of models.toml or a folder.
        prompts: How many prompts, taken from all data sets in turn.
        rewrites: Rewrites of each prompt, from ρ_sft.
        answers: Answers to each prompt and rewrite.
        strength: λ; without it, the one the prompter was trained with.
    """

    bundle: str = "default"
    prompts: TwoOrMore = 16
    rewrites: TwoOrMore = 8
    answers: TwoOrMore = 4
    strength: Positive | None = None


class HeadroomSection(Record):
    """[headroom]: what `eval headroom` tries on each prompt; what is left out follows the budget.

    Attributes:
        bundle: A bundle of models.toml or a folder; its rewrites and those of its ρ_sft are tried.
        hints: How many of the constant hints that come with the package.
        rewrites: Rewrites that are drawn from ρ_θ, and as many from ρ_sft.
        answers: Answers to each rewrite.
        worth: The smallest gain that matters; without it, a fifth of the standard deviation of the
            answers to one prompt.
    """

    bundle: str = "default"
    hints: Count | None = None
    rewrites: TwoOrMore | None = None
    answers: TwoOrMore | None = None
    worth: Positive | None = None


class EvalConfig(Record, kw_only=True):
    """eval.toml: systems x data sets under judges.

    Attributes:
        seed: Seed of prompts, rewrites and answers. Every system answers with the same seeds.
        held_out: Share of prompts, by their hash, that training never sees; as in prompter.toml.
        longest_prompt: Prompts with more characters are left out.
        target: The frozen target, one of three kinds.
        answers: How it is asked, the same for all systems.
        data: The prompts.
        judge: What scores the answers.
        pair_judge: A chat model that also compares pairs of answers.
        system: What is compared; the first one of kind none is the baseline. A baseline is added
            where there is none, and re2 and constant where a prompter is judged.
        constant: How the best constant hint is chosen.
        dial: Reward against KL as λ moves; left out, it is not measured.
        bound: What `eval bound` measures; left out, it has nothing to measure.
        headroom: What `eval headroom` tries; left out, it uses the default bundle.
    """

    seed: Seed = 0
    held_out: Annotated[float, Meta(gt=0, le=1)] = 0.25
    longest_prompt: Count = 800
    target: TargetSection = GgufSection()
    answers: AnswerPlan = AnswerPlan(count=4, max_tokens=64)
    data: Annotated[tuple[DataSetSection, ...], Meta(min_length=1)]
    judge: Annotated[tuple[JudgeSection, ...], Meta(min_length=1)]
    pair_judge: PairJudgeSection | None = None
    system: Annotated[tuple[AnySystem, ...], Meta(min_length=1)]
    constant: ConstantSection = ConstantSection()
    dial: DialSection | None = None
    bound: BoundSection | None = None
    headroom: HeadroomSection | None = None

    @property
    def oracle(self) -> OracleSystemSection | None:
        """The oracle, if there is one."""
        oracles = (system for system in self.system if isinstance(system, OracleSystemSection))
        return next(oracles, None)

    def __post_init__(self) -> None:
        """Refuse names that clash or point nowhere, and a baseline for some data sets only.

        Raises:
            InputError: Names them, and what is needed.
        """
        self._require_unique_names()
        baseline = next((s for s in self.system if isinstance(s, NoPrompterSection)), None)
        if baseline is not None and baseline.data:
            raise InputError(
                f"system {baseline.name} must answer all data sets, because the others are "
                f"compared with it, found data = {list(baseline.data)}.",
                f"Remove data from system {baseline.name}.",
            )
        if self.answers.count < 2:
            raise InputError(
                "answers.count must be at least 2, for the variance within a prompt, found "
                f"{self.answers.count}.",
                "Raise answers.count.",
            )
        known = {data.name for data in self.data}
        if ALL in known:
            raise InputError(
                f"no data set may be named {ALL}, which stands for all of them.", "Rename it."
            )
        for system in self.system:
            if unknown := set(system.data) - known:
                raise InputError(
                    f"system {system.name} names unknown data {sorted(unknown)}.",
                    f"Choose from {', '.join(sorted(known))}.",
                )

    def _require_unique_names(self) -> None:
        tables = {
            "data": [section.name for section in self.data],
            "judge": [section.name for section in self.judge],
            "system": [section.name for section in self.system],
        }
        for what, names in tables.items():
            if len(set(names)) < len(names):
                raise InputError(
                    f"{what} names must be unique, found {', '.join(sorted(names))}.",
                    "Rename one.",
                )
