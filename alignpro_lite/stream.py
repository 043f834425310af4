"""`AlignedStream`: one prompt's rewrite and answer while they are made."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.engine import FinishReason
from alignpro_lite.decoding.reasoning import Passage
from alignpro_lite.decoding.sampling import Consumer, stream_seed
from alignpro_lite.errors import AlignProError, InputError
from alignpro_lite.events import Done, Event, Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.rewriting.draw import DrawModels, chosen_by_user, drawing, unchanged
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice, Result, Timings
from alignpro_lite.rewriting.spans import Protected
from alignpro_lite.rewriting.trials import Trial
from alignpro_lite.target.question import Question


class Answering(ABC):
    """The work behind a stream.

    It knows nothing of the stream, which so is gone, and has ended the work, as soon as nobody
    refers to it: a circle of references would wait for the garbage collector and decode meanwhile.

    Attributes:
        prompt: x.
        choice: Which prompt goes to the target; None before it is known.
    """

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.choice: Choice | None = None

    @property
    def chosen(self) -> Choice:
        """Which prompt goes to the target; the prompt itself where nothing was chosen."""
        return self.choice or unchanged(self.prompt, "cancelled")

    @abstractmethod
    def events(self) -> Generator[Event]:
        """The events from the first to the last, each made when it is asked for."""

    @abstractmethod
    def use(self, text: str) -> Choice:
        """Send this prompt instead; see `EventStream.use`."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop as soon as the step under way is done; from any thread."""

    @abstractmethod
    def result(self) -> Result:
        """What has come of it."""


class EventStream:
    """An answer being made: iterate for pieces of text, or over `events`; then ask for `result`.

    `cancel` works from any thread, while the prompt is rewritten and while the
    answer is decoded. All else is for the thread that reads. A stream that nobody refers to any
    more is cancelled.
    """

    def __init__(self, answering: Answering) -> None:
        """Begin nothing yet.

        Args:
            answering: Makes the events.
        """
        self._answering = answering
        self._ahead: deque[Event] = deque()
        """Events that `prepare` has read and no iteration has yielded."""
        self._work = answering.events()
        self._failure: AlignProError | None = None

    @property
    def choice(self) -> Choice | None:
        """Which prompt goes to the target; None before it is known."""
        return self._answering.choice

    def prepare(self) -> Choice:
        """Rewrite the prompt, without answering it yet; the second call changes nothing.

        Raises:
            InputError, ContextOverflowError, BundleError, RewardError: See `drawing`.
        """
        while self.choice is None and (event := self._step()):
            self._ahead.append(event)
        return self._answering.chosen

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
        return self._answering.use(text)

    def cancel(self) -> None:
        """Stop as soon as the step under way is done; from any thread."""
        self._answering.cancel()

    def result(self) -> Result:
        """Read the rest of the answer and sum it up."""
        for _ in self.events():
            pass
        return self._answering.result()

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
        return self._ahead.popleft() if self._ahead else self._step()

    def _step(self) -> Event | None:
        """The next event that is made; what has failed fails again."""
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._work, None)
        except AlignProError as error:
            self._failure = error
            raise


def answer_has_begun() -> InputError:
    """The error of a prompt that comes too late."""
    return InputError(
        "The answer has begun: its prompt cannot be replaced.",
        "Call `use` when `Rewritten` comes, before the next event is asked for.",
    )


class AlignedStream(EventStream):
    """An answer that is made in this process."""

    def __init__(self, models: DrawModels, protected: Protected, request: Request) -> None:
        super().__init__(_Answering(models, protected, request))


class _Answering(Answering):
    """The rewrite and the answer, from the models of this process."""

    def __init__(self, models: DrawModels, protected: Protected, request: Request) -> None:
        super().__init__(protected.prompt)
        self._models = models
        self._protected = protected
        self._request = request
        self._cancellation = Cancellation()
        self._started = time.monotonic()
        self._said: list[Reasoning | Text] = []
        self._marks: dict[str, float] = {}
        self._has_begun = False
        self._finish: FinishReason | None = None
        self._tokens = self._prompt_tokens = 0
        self._thought_only = False

    def use(self, text: str) -> Choice:
        """Send this prompt instead; see `EventStream.use`."""
        if self._has_begun:
            raise answer_has_begun()
        check_prompt(text)
        if self.choice is None or text != self.choice.sent:
            rewrite = self.choice.rewrite if self.choice else None
            self._choose(chosen_by_user(self._protected.prompt, text, rewrite))
        return self.chosen

    def events(self) -> Generator[Event]:
        """The events from the first to the last, each made when it is asked for."""
        yield from self._rewritten()
        choice = self.chosen
        self._has_begun = True
        if self._cancellation.asked:
            self._finish = "cancelled"
        elif choice.answer is not None and not self._was_cut(choice.answer):
            yield from self._whole(choice.answer)
        else:
            yield from self._decoded(choice)
        yield Done(self.result())

    def _rewritten(self) -> Iterator[Event]:
        """Choose the prompt; the user may do so between any two events."""
        if self.choice is None and self._cancellation.asked:
            self._choose(unchanged(self._protected.prompt, "cancelled"))
        if self.choice is None and self._models.prompter and not self._request.why_kept:
            yield Rewriting()
        steps = drawing(self._models, self._protected, self._request, self._cancellation)
        while self.choice is None:
            try:
                yield next(steps)
            except StopIteration as done:
                self._choose(done.value)
        told = None
        while told is not self.choice:
            told = self.choice
            yield Rewritten(told)

    def _choose(self, choice: Choice) -> None:
        self.choice = choice
        self._marks["rewrite"] = self._elapsed()

    def _decoded(self, choice: Choice) -> Iterator[Event]:
        (answer,) = self._models.target.answer(self._question(choice))
        self._cancellation.enter([answer])
        self._prompt_tokens = answer.prompt_tokens
        try:
            for passage in answer.passages():
                self._marks.setdefault("first_token", self._elapsed())
                yield self._saying(passage)
        finally:
            answer.cancel()
            self._finish = answer.finish_reason or "cancelled"
            self._tokens = answer.token_count
            self._thought_only = answer.thought_only
            self._marks["total"] = self._elapsed()

    def _was_cut(self, trial: Trial) -> bool:
        return trial.finish_reason == "length" and len(trial.draws) < self._request.max_tokens

    def _whole(self, trial: Trial) -> Iterator[Event]:
        """A trial that ended by itself is the answer."""
        self._finish, self._tokens = trial.finish_reason, len(trial.draws)
        question = self._request.question(self.chosen.sent)
        tokens = self._models.target.prompt_tokens(question.messages, question.thinking)
        self._prompt_tokens = len(tokens)
        self._marks["first_token"] = self._marks["total"] = self._elapsed()
        thought = Passage(trial.reasoning, is_thought=True)
        for passage in (thought, Passage(trial.text, False, trial.log_probs)):
            if passage.text:
                yield self._saying(passage)

    def _saying(self, passage: Passage) -> Reasoning | Text:
        text = passage.text
        said = Reasoning(text) if passage.is_thought else Text(text, passage.log_probs)
        self._said.append(said)
        return said

    def _question(self, choice: Choice) -> Question:
        """A fresh answer to the prompt in use, or what follows a trial of it."""
        question = self._request.question(choice.sent)
        if choice.answer is None:
            return question
        seed = stream_seed(question.sampling.seed, Consumer.CONTINUATION)
        sampling = replace(question.sampling, seed=seed)
        return replace(question, begun=choice.answer.draws, sampling=sampling)

    def cancel(self) -> None:
        """Stop as soon as the step under way is done; from any thread."""
        self._cancellation.cancel()

    def result(self) -> Result:
        """What has come of it; an answer that is not done counts as cancelled."""
        total = self._marks.get("total", self._elapsed())
        return Result(
            choice=self.chosen,
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
            log_probs=tuple(
                token
                for event in self._said
                if isinstance(event, Text)
                for token in event.log_probs
            ),
        )

    def _all(self, kind: type[Reasoning | Text]) -> str:
        return "".join(event.text for event in self._said if isinstance(event, kind))

    def _elapsed(self) -> float:
        return time.monotonic() - self._started
