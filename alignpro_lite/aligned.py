"""`AlignedModel`: the prompter and the target as one model.

    x -> prompter -> x' -> target -> y

`stream` is the primitive, `run` reads it to the end. Both models decode in
their own engine loop, so many threads may call one AlignedModel.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.engine import FinishReason
from alignpro_lite.decoding.sampling import Consumer, stream_seed
from alignpro_lite.errors import InputError
from alignpro_lite.events import Done, Event, Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.plan import Plan
from alignpro_lite.loading import plan_models
from alignpro_lite.prompter.prompter import Prompter, Rewrite
from alignpro_lite.registry import DEFAULT, ModelStore
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.reward.loading import open_reward, scorer_named
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, chosen_by_user, drawing, unchanged
from alignpro_lite.rewriting.language import language_model
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice, Result, Timings
from alignpro_lite.rewriting.spans import Protected, compile_patterns, protect
from alignpro_lite.rewriting.trials import Trial
from alignpro_lite.target.target import LlamaTarget, Question


class AlignedStream:
    """An answer being made: iterate for pieces of text, or over `events`; then ask for `result`.

    `cancel` works from any thread, while the prompt is rewritten and while the
    answer is decoded. All else is for the thread that reads.
    """

    def __init__(self, models: DrawModels, protected: Protected, request: Request) -> None:
        self._models = models
        self._protected = protected
        self._request = request
        self._cancellation = Cancellation()
        self._started = time.monotonic()
        self._choice: Choice | None = None
        self._said: list[Reasoning | Text] = []
        self._marks: dict[str, float] = {}
        self._has_begun = False
        self._finish: FinishReason | None = None
        self._tokens = self._prompt_tokens = 0
        self._thought_only = False
        self._ahead: deque[Event] = deque()
        """Events that `prepare` has read and no iteration has yielded."""
        self._work = self._events()

    @property
    def choice(self) -> Choice | None:
        """Which prompt goes to the target; None before it is known."""
        return self._choice

    def prepare(self) -> Choice:
        """Rewrite the prompt, without answering it yet; the second call changes nothing.

        Raises:
            InputError, ContextOverflowError, BundleError, RewardError: See `drawing`.
        """
        while self._choice is None and (event := next(self._work, None)):
            self._ahead.append(event)
        return self._chosen

    @property
    def _chosen(self) -> Choice:
        return self._choice or unchanged(self._protected.prompt, "cancelled")

    def use(self, text: str) -> Choice:
        """Send this prompt instead of what was chosen, before the answer begins.

        That is after `prepare`, in an iteration when `Candidates` or `Rewritten` has come, or
        before anything: then nothing is rewritten. The text that would be sent anyway changes
        nothing.

        Args:
            text: An edited rewrite, or the prompt itself.

        Raises:
            InputError: The text is empty or not text, or the answer has begun.
        """
        if self._has_begun:
            raise InputError(
                "The answer has begun: its prompt cannot be replaced.",
                "Call `use` when `Rewritten` comes, before the next event is asked for.",
            )
        check_prompt(text)
        if self._choice is None or text != self._choice.sent:
            rewrite = self._choice.rewrite if self._choice else None
            self._choose(chosen_by_user(self._protected.prompt, text, rewrite))
        return self._chosen

    def __iter__(self) -> Iterator[str]:
        """Pieces of the answer as they are decoded; iterating again continues the same answer."""
        return (event.text for event in self.events() if isinstance(event, Text))

    def events(self) -> Iterator[Event]:
        """All that happens, as it happens; iterating again continues where it was left.

        Raises:
            InputError, ContextOverflowError, BundleError, RewardError: See `drawing`.
            CancelledError: The model was closed meanwhile.
            AlignProError: An engine failed.
        """
        return iter(self._next, None)

    def _next(self) -> Event | None:
        return self._ahead.popleft() if self._ahead else next(self._work, None)

    def _events(self) -> Generator[Event]:
        yield from self._rewritten()
        choice = self._chosen
        self._has_begun = True
        if self._cancellation.asked:
            self._finish = "cancelled"
        elif choice.answer is not None and not self._was_cut(choice.answer):
            yield from self._whole(choice.answer)
        else:
            yield from self._decoded(choice)
        yield Done(self._summary())

    def _rewritten(self) -> Iterator[Event]:
        """Choose the prompt; the user may do so between any two events."""
        if self._choice is None and self._cancellation.asked:
            self._choose(unchanged(self._protected.prompt, "cancelled"))
        if self._choice is None and self._models.prompter and not self._request.why_kept:
            yield Rewriting()
        steps = drawing(self._models, self._protected, self._request, self._cancellation)
        while self._choice is None:
            try:
                yield next(steps)
            except StopIteration as done:
                self._choose(done.value)
        told = None
        while told is not self._choice:
            told = self._choice
            yield Rewritten(told)

    def _choose(self, choice: Choice) -> None:
        self._choice = choice
        self._marks["rewrite"] = self._elapsed()

    def _decoded(self, choice: Choice) -> Iterator[Event]:
        (answer,) = self._models.target.answer(self._question(choice))
        self._cancellation.enter([answer])
        self._prompt_tokens = answer.prompt_tokens
        try:
            for passage in answer.passages():
                self._marks.setdefault("first_token", self._elapsed())
                yield self._saying(passage.text, thought=passage.is_thought)
        finally:
            answer.cancel()
            self._finish = answer.finish_reason or "cancelled"
            self._tokens = answer.token_count
            self._thought_only = answer.thought_only
            self._marks["total"] = self._elapsed()

    def _was_cut(self, trial: Trial) -> bool:
        return trial.finish_reason == "length" and len(trial.tokens) < self._request.max_tokens

    def _whole(self, trial: Trial) -> Iterator[Event]:
        """A trial that ended by itself is the answer."""
        self._finish, self._tokens = trial.finish_reason, len(trial.tokens)
        question = self._request.question(self._chosen.sent)
        self._prompt_tokens = len(self._models.target.prompt_tokens(question.messages))
        self._marks["first_token"] = self._marks["total"] = self._elapsed()
        for text, thought in ((trial.reasoning, True), (trial.text, False)):
            if text:
                yield self._saying(text, thought=thought)

    def _saying(self, text: str, *, thought: bool) -> Reasoning | Text:
        self._said.append(Reasoning(text) if thought else Text(text))
        return self._said[-1]

    def _question(self, choice: Choice) -> Question:
        """A fresh answer to the prompt in use, or what follows a trial of it."""
        question = self._request.question(choice.sent)
        if choice.answer is None:
            return question
        seed = stream_seed(question.sampling.seed, Consumer.CONTINUATION)
        sampling = replace(question.sampling, seed=seed)
        return replace(question, begun=choice.answer.tokens, sampling=sampling)

    def cancel(self) -> None:
        """Stop as soon as the step under way is done."""
        self._cancellation.cancel()

    def result(self) -> Result:
        """Read the rest of the answer and sum it up."""
        for _ in self.events():
            pass
        return self._summary()

    def _summary(self) -> Result:
        total = self._marks.get("total", self._elapsed())
        return Result(
            choice=self._chosen,
            answer=self._all(Text),
            reasoning=self._all(Reasoning).strip(),
            thought_only=self._thought_only,
            finish_reason=self._finish or "cancelled",
            answer_tokens=self._tokens,
            prompt_tokens=self._prompt_tokens,
            timings=Timings(
                rewrite=self._marks.get("rewrite", total),
                first_token=self._marks.get("first_token", total),
                total=total,
            ),
        )

    def _all(self, kind: type[Reasoning | Text]) -> str:
        return "".join(event.text for event in self._said if isinstance(event, kind))

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def _load_reward(
    reward: str | Path | None, store: ModelStore, threads: int, target: Future[LlamaTarget]
) -> Reward | None:
    """Load a reward; one that needs the target waits for it."""
    if reward is None:
        return None
    source = scorer_named(reward)
    judging = target.result() if source.is_target else None
    return open_reward([source], store, threads, target=judging)


class AlignedModel:
    """A prompter and a frozen target, loaded and ready.

    Use it as a context manager, or call `close`, to give the memory back.

    >>> with AlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
    ...     for piece in model.stream("How do I stay safe online?"):
    ...         print(piece, end="")
    """

    def __init__(
        self,
        target: LlamaTarget,
        prompter: Prompter | None,
        plan: Plan,
        reward: Reward | None = None,
    ) -> None:
        self.target = target
        self.prompter = prompter
        self.plan = plan
        self.reward = reward

    @classmethod
    def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        reward: str | Path | None = None,
        *,
        models: str = DEFAULT,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
        on_progress: OnProgress = no_progress,
    ) -> AlignedModel:
        """Load the models, at the same time.

        Args:
            target: A GGUF file, a name of models.toml, a pulled model of a hub as
                `hf:owner/repo:Q4_K_M`, or `default`.
            prompter: A bundle folder, a name of models.toml, `self` for the target's own
                weights, `default`, or None to answer prompts as they are.
            reward: A reward bundle, a name of models.toml, `default`, a Python function as
                `package.module:function`, `judge:target` for the target as its own judge, another
                judge as `judge:GGUF-or-name`, or None.
            models: The preset of models.toml whose models `default` stands for.
            devices: Where to run and how long a context.
            cache: Folder of pulled models; None for the platform's own.
            on_progress: Told how far the assembly of a bundle is, on its first use.

        Raises:
            AlignProError: A model, a device or a dependency is missing or unusable.
        """
        store = ModelStore.open(cache, models)
        planned = plan_models(target, prompter, store, devices, on_progress)
        planned.require_working()  # on this thread, which Ctrl-C interrupts
        with ThreadPoolExecutor(max_workers=4) as pool:
            answering = pool.submit(planned.load_target)
            rewriting = pool.submit(planned.load_prompter, answering)
            scoring = pool.submit(_load_reward, reward, store, planned.plan.threads, answering)
            # Refusals need it: loaded here, the first rewrite does not wait for it.
            reading = [] if prompter is None else [pool.submit(language_model)]
        loading: list[Future[Any]] = [answering, rewriting, scoring]
        failures = [error for future in [*loading, *reading] if (error := future.exception())]
        if not failures:
            return cls(answering.result(), rewriting.result(), planned.plan, scoring.result())
        for future in loading:
            # Close what did load: nobody else can.
            if not future.exception() and (loaded := future.result()):
                loaded.close()
        raise failures[0]

    def __enter__(self) -> AlignedModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and free the memory."""
        for model in (self.prompter, self.reward, self.target):
            if model is not None:
                model.close()

    def rewrite(self, prompt: str, n: int = 1, request: Request = Request()) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it.

        Args:
            prompt: x.
            n: How many; rewrite i is the same whatever n is.
            request: The sampling settings, and the conversation before the prompt.

        Raises:
            InputError: The prompt is empty or not text, or no prompter is loaded.
            ContextOverflowError: The prompt does not fit.
        """
        if self.prompter is None:
            raise InputError("No prompter is loaded.", "Load the model with a prompter.")
        bare = protect(prompt).prompt
        check_prompt(bare)
        usual = request.rewrite_sampling or self.prompter.profile.sampling
        earlier = self.prompter.fitting(bare, request.history)
        sampling = replace(usual, seed=request.sampling.seed)
        return self.prompter.rewrite(bare, n, sampling, earlier)

    def stream(self, prompt: str, request: Request = Request()) -> AlignedStream:
        """Rewrite a prompt and answer it; iterate over what it returns.

        Raises:
            InputError: The prompt is empty or not text, or the target has no switch for thinking.
        """
        self.target.thinking.values(request.thinking)
        protected = protect(prompt, compile_patterns(request.protect))
        check_prompt(protected.prompt)
        return AlignedStream(
            DrawModels(self.prompter, self.target, self.reward), protected, request
        )

    def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""
        return self.stream(prompt, request).result()
