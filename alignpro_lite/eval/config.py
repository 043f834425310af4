"""What eval.toml may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignpro_lite.eval.summary import ALL
from alignpro_lite.experiment.config import Section
from alignpro_lite.experiment.sections import (
    AnswerSection,
    Count,
    GgufSection,
    Name,
    Positive,
    PromptFileSection,
    RewardSection,
    TargetSection,
)

SystemName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^|\x00-\x1f]+$")]


class DataSection(PromptFileSection):
    """[[data]]: a set of prompts.

    Attributes:
        path: JSON lines or a JSON array, plain or gzipped; relative to the data folder.
        format: instruction (rows with an instruction and a context) or prompt (rows with a prompt).
        name: What the report calls it.
        part: held_out takes only prompts that training never sees, all takes every one.
        prompts: How many, at most.
    """

    name: Name
    part: Literal["held_out", "all"] = "held_out"
    prompts: int = Field(50, ge=2)


class JudgeSection(Section):
    """[[judge]]: a reward that scores every answer, against the original prompt.

    Attributes:
        name: What the report calls it. The first judge is the one that was optimised.
        reward: Its parts, as [[reward]] of prompter.toml.
    """

    name: Name
    reward: Annotated[tuple[RewardSection, ...], Field(min_length=1)]


class PairJudgeSection(Section):
    """[pair_judge]: a chat model that is shown two answers, in both orders.

    Attributes:
        source: A target of models.toml or a GGUF file.
    """

    source: str


class SystemSection(Section):
    """What every system has.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
    """

    name: SystemName
    data: tuple[Name, ...] = ()


class NoPrompterSection(SystemSection):
    """[[system]] of kind none: the prompt as it is.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: Which system it is.
    """

    kind: Literal["none"]


class PrompterSystemSection(SystemSection):
    """[[system]] of kind prompter: a bundle as users run it, a rewrite for every answer.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: prompter is ρ_θ with the sampling of its bundle, reference is ρ_sft at temperature 1.
        bundle: A bundle of models.toml or a folder.
    """

    kind: Literal["prompter", "reference"]
    bundle: str = "default"


class RhoStarSection(SystemSection):
    """[[system]] of kind rho_star: draws from ρ*, see docs/sampling.md.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: Which system it is.
        bundle: A bundle of models.toml or a folder.
        samples: N, candidates.
        strength: λ; without it, the one the prompter was trained with.
        trials: M, trial answers to each candidate.
        guard: Whether the prompt is kept unless the rewrite is better beyond the noise.
        returns: fresh draws one rewrite a prompt and answers it anew, which is ρ* and nothing else;
            scored draws one for every answer and returns its best trial, as `run` does.
    """

    kind: Literal["rho_star"]
    bundle: str = "default"
    samples: Count = 8
    strength: Positive | None = None
    trials: Count = 2
    guard: bool = False
    returns: Literal["fresh", "scored"] = "fresh"


class BestOfSection(SystemSection):
    """[[system]] of kind best_of: the best of several answers to the prompt, by the first judge.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: Which system it is.
        samples: Answers of which each best one is taken.
    """

    kind: Literal["best_of"]
    samples: int = Field(4, ge=2)


class InstructionSection(SystemSection):
    """[[system]] of kind instruction: a fixed text before every prompt.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: Which system it is.
        text: Stands before the prompt, a blank line between them.
    """

    kind: Literal["instruction"]
    text: Annotated[str, Field(min_length=1)]


class GivenSection(SystemSection):
    """[[system]] of kind given: rewrites that were made elsewhere, such as BPO's.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all. Every prompt of them needs a rewrite.
        kind: Which system it is.
        path: JSON lines or a JSON array, plain or gzipped; relative to the data folder.
        prompt_key: Where a row holds x.
        rewrite_key: Where a row holds x'.
    """

    kind: Literal["given"]
    path: str
    prompt_key: str = "prompt"
    rewrite_key: str = "optimized_prompt"


class OracleSystemSection(SystemSection):
    """[[system]] of kind oracle: the target itself, aligned by `train oracle`.

    Attributes:
        name: What the report calls it.
        data: Data sets it answers; none for all.
        kind: Which system it is.
        source: A GGUF file, or a target of models.toml.
        context: Tokens that all answers under way share, prompts included.
    """

    kind: Literal["oracle"]
    source: str
    context: int = Field(8192, ge=256)


AnySystem = Annotated[
    NoPrompterSection
    | PrompterSystemSection
    | RhoStarSection
    | BestOfSection
    | InstructionSection
    | GivenSection
    | OracleSystemSection,
    Field(discriminator="kind"),
]


class DialSection(Section):
    """[dial]: reward against KL as λ moves, for sampling and for the adapter.

    Attributes:
        bundle: A bundle of models.toml or a folder.
        prompts: How many, taken from all data sets in turn.
        samples: Candidates of each prompt.
        trials: Trial answers to each; one half chooses, the other half judges.
        strengths: λ, from the weakest to the strongest KL term.
        gates: What the adapter is multiplied with: 0 is ρ_sft, 1 is ρ_θ.
    """

    bundle: str = "default"
    prompts: int = Field(24, ge=2)
    samples: int = Field(8, ge=2)
    trials: int = Field(4, ge=2, le=16, multiple_of=2)
    strengths: tuple[Positive, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    gates: tuple[Annotated[float, Field(ge=0, le=4)], ...] = (0.25, 0.5, 0.75, 1.0, 1.25)


class BoundSection(Section):
    """[bound]: what `eval bound` measures of theorem 6.1.

    Attributes:
        bundle: A bundle of models.toml or a folder.
        prompts: How many, taken from all data sets in turn.
        rewrites: Rewrites of each prompt, from ρ_sft.
        answers: Answers to each prompt and rewrite.
        strength: λ; without it, the one the prompter was trained with.
    """

    bundle: str = "default"
    prompts: int = Field(16, ge=2)
    rewrites: int = Field(8, ge=2)
    answers: int = Field(4, ge=2)
    strength: Positive | None = None


class EvalConfig(Section):
    """eval.toml: systems x data sets under judges.

    Attributes:
        seed: Of prompts, rewrites and answers. Every system answers with the same seeds.
        held_out: Share of prompts, by their hash, that training never sees; as in prompter.toml.
        longest_prompt: Prompts of more characters are left out.
        target: The frozen target, one of three kinds.
        answers: How it is asked, the same for all systems.
        data: The prompts.
        judge: What scores the answers.
        pair_judge: A chat model that compares pairs of answers besides.
        system: What is compared; the first one of kind none is the baseline.
        dial: Reward against KL as λ moves; left out, it is not measured.
        bound: What `eval bound` measures; left out, it has nothing to measure.
    """

    seed: int = Field(0, ge=0, lt=2**32)
    held_out: float = Field(0.25, gt=0, le=1)
    longest_prompt: Count = 800
    target: TargetSection = GgufSection()
    answers: AnswerSection = AnswerSection(count=4, max_tokens=64)
    data: Annotated[tuple[DataSection, ...], Field(min_length=1)]
    judge: Annotated[tuple[JudgeSection, ...], Field(min_length=1)]
    pair_judge: PairJudgeSection | None = None
    system: Annotated[tuple[AnySystem, ...], Field(min_length=1)]
    dial: DialSection | None = None
    bound: BoundSection | None = None

    @property
    def baseline(self) -> str:
        """Name of the system that the others are held against."""
        return next(one.name for one in self.system if isinstance(one, NoPrompterSection))

    @property
    def oracle(self) -> OracleSystemSection | None:
        """The oracle, if there is one."""
        return next((one for one in self.system if isinstance(one, OracleSystemSection)), None)

    @model_validator(mode="after")
    def _names_fit(self) -> EvalConfig:
        for what, names in (
            ("data", [one.name for one in self.data]),
            ("judge", [one.name for one in self.judge]),
            ("system", [one.name for one in self.system]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names must be unique, found {', '.join(sorted(names))}")
        baseline = next((one for one in self.system if isinstance(one, NoPrompterSection)), None)
        if baseline is None:
            raise ValueError("a system of kind none is needed, to hold the others against")
        if baseline.data:
            raise ValueError(
                f"system {baseline.name} must answer all data sets, because the others are held "
                f"against it; found data = {list(baseline.data)}"
            )
        if self.answers.count < 2:
            raise ValueError("answers.count must be at least 2, for the variance within a prompt")
        known = {one.name for one in self.data}
        if ALL in known:
            raise ValueError(f"no data set may be named {ALL}, which stands for all of them")
        for system in self.system:
            if unknown := set(system.data) - known:
                raise ValueError(f"system {system.name} names unknown data {sorted(unknown)}")
        return self
