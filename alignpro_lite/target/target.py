"""The frozen target: any GGUF that llama.cpp opens; conversations in, streams of answers out."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation, LoadWatch
from alignpro_lite.decoding.checking import require_keepable
from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.engine import Engine, Submission, replayed_log_probs
from alignpro_lite.decoding.grammar import answer_grammar, reply_grammar
from alignpro_lite.decoding.guide import Guide, GuideVocabulary
from alignpro_lite.decoding.llamacpp import LlamaModel
from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.decoding.reasoning import (
    ReasoningFormat,
    ReasoningSplitter,
    begins_inside,
    reasoning_format,
)
from alignpro_lite.decoding.sampling import Draw, GivenTokens, stream_seed
from alignpro_lite.decoding.sandbox import keep_renderer, release_renderer
from alignpro_lite.decoding.thinking import Thinking, ThinkingSwitch
from alignpro_lite.errors import AlignProError, DeviceError, InputError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.target.answer_stream import AnswerStream
from alignpro_lite.target.choices import openings
from alignpro_lite.target.llama import (
    Drawing,
    LlamaStepper,
    LoraAdapter,
    TargetSampler,
    TargetSettings,
    free_sampler,
    new_sampler,
    open_model,
)
from alignpro_lite.target.question import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LlamaTarget:
    """A loaded target. All answers are decoded together, whichever caller asked for them.

    Use it as a context manager, or call `close`, to free its memory.

    Attributes:
        thinking: The switch of its thoughts.
        reasoning: How it writes thoughts; None if it writes none.
        engine: Where they are decoded; a prompter that is the target itself has its rewrites
            decoded there too.
    """

    def __init__(
        self, path: Path, file: GgufFile, settings: TargetSettings, watch: LoadWatch | None = None
    ) -> None:
        """Load a model.

        Args:
            path: A GGUF file that generates text.
            file: Its header, already read and checked.
            settings: Sizes and devices.
            watch: Told how far the loading is.

        Raises:
            ModelFileError: llama.cpp cannot open the file.
            DeviceError: There is not enough memory, or the GPU cannot be used.
            CancelledError: The watcher has cancelled it.
        """
        self.file = file
        with ExitStack() as failing:
            keep_renderer()  # it starts while the weights are loaded
            failing.callback(release_renderer)
            model = open_model(path, settings, watch)
            names = {
                "bos_token": model.special_text(model.bos),
                "eos_token": model.special_text(model.eos),
            }
            self.thinking = ThinkingSwitch(file.chat_template, names)
            self.reasoning = reasoning_format(file.chat_template)
            self._tags = dict(_silent_tags(model, self.reasoning))
            self.engine: Engine[TargetSampler] = Engine(
                LlamaStepper(model, settings),
                "target",
                "Shorten the prompt, lower --max-tokens, or raise --ctx.",
            )
            failing.pop_all()
        self._model: LlamaModel | None = model
        self.path = path
        self.settings = settings

    def __enter__(self) -> LlamaTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and free the memory."""
        self.engine.close()
        if self._model is not None:
            release_renderer()
        self._model = None

    @property
    def _native(self) -> LlamaModel:
        """The open model; a reference to it outlives a `close` by another thread."""
        if self._model is None:
            raise DeviceError("The target is closed.", "Load the model again.")
        return self._model

    def prompt_tokens(self, messages: Sequence[Message], thinking: Thinking = "auto") -> list[int]:
        """Token ids of a conversation under the file's own chat template.

        Special tokens and other markers come from the template alone; a user's text is tokenised
        as plain text, whatever it contains.

        Raises:
            ModelFileError, InputError: See `render` and `ThinkingSwitch.values`.
        """
        native = self._native
        special = self.thinking.names
        switch = self.thinking.values(thinking)
        rendered = render(self.file.chat_template, messages, special, switch)
        template = "\n".join([self.file.chat_template or "", *special.values()])
        tokens = native.tokenize_rendered(rendered, template)
        if native.add_bos and native.bos is not None and tokens[:1] != [native.bos]:
            tokens.insert(0, native.bos)
        return tokens

    def adapted(self, adapter: LoraAdapter, context: int) -> Engine[TargetSampler]:
        """A second context on the same weights, with an adapter on them; the caller closes it.

        Args:
            adapter: A GGUF LoRA.
            context: Tokens that all of its sequences together may hold.

        Raises:
            DeviceError: There is not enough memory.
            ModelFileError: llama.cpp cannot use the adapter with these weights.
        """
        settings = replace(self.settings, context=context, longest=None)
        return Engine(
            LlamaStepper(self._native, settings, adapter),
            "adapted target",
            "Shorten the prompt, or raise --ctx.",
        )

    def answer(self, question: Question) -> list[AnswerStream]:
        """Start the answers to one question; they are decoded together."""
        (streams,) = self.answer_together([question])
        return streams

    def answer_together(
        self, questions: Sequence[Question], *, fresh: bool = False
    ) -> list[list[AnswerStream]]:
        """Start the answers to several questions at one moment; all are decoded together.

        Args:
            questions: What to answer.
            fresh: Whether to forget cached prompts first, so that rounding depends on the questions
                alone; see `Engine.submit_together`.

        Returns:
            For each question one stream an answer.

        Raises:
            ContextOverflowError: A question and an answer can never fit. None is started.
        """
        batches: list[list[Submission[TargetSampler]]] = []
        try:
            for question in questions:
                batches.append([])
                batches[-1].extend(self._submissions(question))
            every = [submission for batch in batches for submission in batch]
            started = iter(self.engine.submit_together(every, fresh=fresh))
        except AlignProError:
            for submission in (submission for batch in batches for submission in batch):
                for sampler in submission.samplers:
                    free_sampler(self._native, sampler)  # the engine frees those that it accepts
            raise
        return [
            [
                AnswerStream(
                    self,
                    stream,
                    question,
                    self._splitter(submission.prompt, question),
                    len(submission.prompt),
                )
                for submission in batch
                for stream in next(started)
            ]
            for question, batch in zip(questions, batches, strict=True)
        ]

    def _splitter(self, prompt: Sequence[int], question: Question) -> ReasoningSplitter:
        """Tells thoughts from the answer to a prompt, which may open the first thought itself."""
        asked = prompt[: len(prompt) - len(question.begun)]
        return ReasoningSplitter(self.reasoning, inside=self.begins_thought(asked))

    def begins_thought(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends with the tag that begins a thought."""
        return begins_inside(prompt, self.reasoning, self._spelled)

    def _spelled(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        native = self._native
        pieces = (native.piece(token) or native.special_text(token).encode() for token in tokens)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def require_room(self, question: Question) -> None:
        """Refuse a question that can never be answered in this context.

        Raises:
            ContextOverflowError: The conversation and an answer can never fit.
        """
        tokens = [*self._prompt(question), *question.begun_tokens]
        self.engine.require_room(len(tokens), _left(question))

    def _submissions(self, question: Question) -> Iterator[Submission[TargetSampler]]:
        """The answers to a question, in as few batches as rows and context allow."""
        asked = self._prompt(question)
        prompt = [*asked, *question.begun_tokens]
        guide = self._guide(question, asked)
        together = self.engine.together(len(prompt), _left(question))
        numbers = range(question.first, question.first + question.count)
        for start in range(0, len(numbers), together):
            samplers: list[TargetSampler] = [
                new_sampler(self._native, self._drawing(question, number, guide))
                for number in numbers[start : start + together]
            ]
            yield Submission(prompt, samplers, _left(question))

    def _drawing(self, question: Question, number: int, guide: Guide | None) -> Drawing:
        """How one answer is drawn."""
        seed = stream_seed(question.sampling.seed, number)
        return Drawing(
            replace(question.sampling, seed=seed),
            question.penalties,
            longest=question.max_tokens,
            guide=guide and guide.copy(),
            alternatives=question.log_probs or 0,
            begun=tuple(question.begun_tokens),
        )

    def _guide(self, question: Question, asked: Sequence[int]) -> Guide | None:
        """What an answer to a prompt is held to, at its beginning."""
        if question.constraint is None:
            return None
        require_keepable(question.constraint)
        inside = self.begins_thought(asked)
        thinks = self.reasoning is not None and (inside or question.thinking != "off")
        if self.reasoning is None or not thinks:
            return self._vocabulary.guide(answer_grammar(question.constraint))
        return self._vocabulary.guide(
            reply_grammar(question.constraint, self.reasoning, inside=inside)
        )

    @cached_property
    def _vocabulary(self) -> GuideVocabulary:
        native = self._native
        pieces = [self.spoken(token) for token in range(native.n_vocab)]
        return GuideVocabulary(pieces, native.stop, _tokenizer_of(native))

    def _prompt(self, question: Question) -> list[int]:
        return self.prompt_tokens(question.messages, question.thinking)

    def choice_log_probs(
        self,
        conversations: Sequence[Sequence[Message]],
        choices: Sequence[str],
        cancellation: Cancellation | None = None,
    ) -> NDArray[np.float64]:
        """How likely each reply is; see `Chooser.choice_log_probs`.

        What conversations begin with in common is computed once.

        Args:
            conversations: What is asked.
            choices: At most as many texts as the target has sequences.
            cancellation: Stops the reading.
        """
        common, firsts = self._openings(choices)
        prompts = [[*self._reply_prompt(messages), *common] for messages in conversations]
        # In this order, neighbours begin alike for as long as they can.
        order = sorted(range(len(prompts)), key=prompts.__getitem__)
        submissions: list[Submission[TargetSampler]] = [
            Submission(prompts[place], [GivenTokens([first]) for first in firsts], 1)
            for place in order
        ]
        started = self.engine.submit_together(submissions, fresh=True)
        flat = [stream for streams in started for stream in streams]
        (cancellation or Cancellation()).enter(flat)
        found = np.full((len(prompts), len(choices)), np.nan)
        try:
            for place, streams in zip(order, started, strict=True):
                drawn = [draw.log_prob for stream in streams for draw in stream]
                if len(drawn) == len(choices):  # fewer where it was cancelled
                    found[place] = drawn
        finally:
            for stream in flat:
                stream.cancel()
        return found

    def require_choice_room(self, messages: Sequence[Message], choices: Sequence[str]) -> None:
        """Refuse a conversation without room; see `Chooser.require_choice_room`."""
        common, firsts = self._openings(choices)
        prompt = [*self._reply_prompt(messages), *common]
        self.engine.require_room(len(prompt), 1, len(firsts))

    def _openings(self, choices: Sequence[str]) -> tuple[list[int], list[int]]:
        return openings(choices, partial(self._native.tokenize, special=False))

    def _reply_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the reply begins, without a thought."""
        prompt = self.prompt_tokens(messages, self.thinking.briefly("auto"))
        if self.reasoning is None or not self.begins_thought(prompt):
            return prompt
        return [*prompt, *self._native.tokenize(self.reasoning.end, special=True)]

    def score(
        self, messages: Sequence[Message], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        """Score given answers to one conversation; see `score_each`."""
        (scores,) = self.score_each([messages], continuations)
        return scores

    def score_each(
        self,
        conversations: Sequence[Sequence[Message]],
        continuations: Sequence[Sequence[int]],
        thinking: Thinking = "auto",
    ) -> list[list[float]]:
        """Score answers to each of several conversations: log π_F(y|x), natural, at temperature 1.

        Rounding depends on the size of a batch, by about a thousandth of a nat a token. Answers
        that were sampled with `fresh`, as many together as are scored here, get exactly the
        log-probability that they were drawn with.

        Args:
            conversations: The same answers are scored under each; its prompt is computed once.
            continuations: Token ids of each answer with its thought, or of its beginning.
            thinking: How they were asked.

        Returns:
            For each conversation one number a continuation, summed over its tokens. Minus infinity
            for a continuation beyond a token that ends an answer: the target never writes it.

        Raises:
            ContextOverflowError: A conversation and a continuation do not fit.
            InputError: A continuation is empty, or holds a token that the target does not have.
        """
        native = self._native
        for tokens in continuations:
            _require_tokens(tokens, native.n_vocab)
        places = [
            place
            for place, tokens in enumerate(continuations)
            if not any(native.is_stop(token) for token in tokens[:-1])
        ]
        # Similar lengths together, because a batch takes as long as its longest sequence.
        places.sort(key=lambda place: len(continuations[place]))
        written = [continuations[place] for place in places]
        prompts = [self.prompt_tokens(messages, thinking) for messages in conversations]
        found = iter(self._scored(prompts, written))
        rows = [[-math.inf] * len(continuations) for _ in conversations]
        for row in rows:
            for place in places:
                row[place] = next(found)
        return rows

    def _scored(
        self, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
    ) -> list[float]:
        """Scores under the first prompt, then under the next one; all decoded together."""
        submissions = [
            submission
            for prompt in prompts
            for submission in self._scoring_submissions(prompt, written)
        ]
        # Fresh: the same answers must get the same score, whatever was computed before.
        started = self.engine.submit_together(submissions, fresh=True)
        streams = [stream for batch in started for stream in batch]
        lengths = [len(tokens) for tokens in written] * len(prompts)
        return replayed_log_probs(streams, lengths)

    def _scoring_submissions(
        self, prompt: Sequence[int], written: Sequence[Sequence[int]]
    ) -> Iterator[Submission[TargetSampler]]:
        """The answers to one prompt, in as few batches as rows and context allow."""
        together = self.engine.together(len(prompt), max(map(len, written), default=1))
        for start in range(0, len(written), together):
            batch = written[start : start + together]
            samplers = [GivenTokens(tokens) for tokens in batch]
            yield Submission(prompt, samplers, max(map(len, batch)))

    def log_probs_of(self, draw: Draw) -> TokenLogProb:
        """A drawn token as it is reported, with its alternatives."""
        alternatives = tuple(
            TokenLogProb(token, self.piece(token), log_prob)
            for token, log_prob in draw.alternatives
        )
        return TokenLogProb(draw.token, self.piece(draw.token), draw.log_prob, alternatives)

    def is_like(self, other: LlamaTarget) -> bool:
        """Whether both have the same vocabulary, so that each can score what the other wrote."""
        ours, theirs = self._native, other._native
        return ours.n_vocab == theirs.n_vocab and all(
            ours.piece(token) == theirs.piece(token)
            and ours.is_stop(token) == theirs.is_stop(token)
            for token in range(ours.n_vocab)
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as the target would write it, with the token that ends it."""
        native = self._native
        end = native.stop[0] if native.eos is None else native.eos
        return [*native.tokenize(text, special=False), end]

    def template_tokens(self, text: str) -> list[int]:
        """Token ids of a text that belongs to a template: markers in it are special tokens."""
        return self._native.tokenize(text, special=True)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        return self._native.piece(token)

    def spoken(self, token: int) -> bytes:
        """The bytes of a token, also of a control token that is part of a tag around a thought."""
        return self._tags.get(token) or self.piece(token)


def _silent_tags(native: LlamaModel, known: ReasoningFormat | None) -> Iterator[tuple[int, bytes]]:
    """The control tokens that tags around thoughts are made of, and how they are written."""
    for tag in known.tags if known else ():
        for token in native.tokenize(tag, special=True):
            if not native.piece(token):
                yield token, native.special_text(token).encode()


def _tokenizer_of(native: LlamaModel) -> Callable[[str], list[int]]:
    """Tokenises for guides, which may be kept longer than the weights."""
    kept = weakref.ref(native)

    def tokenize(text: str) -> list[int]:
        model = kept()
        return [] if model is None else model.tokenize_inside(text)

    return tokenize


def _require_tokens(tokens: Sequence[int], size: int) -> None:
    """Refuse what llama.cpp cannot decode.

    Raises:
        InputError: There is no token, or one that the vocabulary does not have.
    """
    if not tokens or not all(0 <= token < size for token in tokens):
        raise InputError(
            f"An answer to score needs tokens from 0 to {size - 1}, found {list(tokens)[:8]}.",
            "Score answers of this target, or of another one with the same vocabulary.",
        )


def _left(question: Question) -> int:
    """How many more tokens its answers may get."""
    return question.max_tokens - len(question.begun)
