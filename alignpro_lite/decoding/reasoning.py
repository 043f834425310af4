"""Reasoning models: what is thought and what is said, told apart by the tags of the chat template.

Which tags a model uses is decided from its template alone. A model whose template knows none may
write `<think>` like any other word, for example when it is asked about a tag of that name. A
thought stands before the answer: behind the first word of an answer, a tag is text too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.decoding.text import StopStrings, cut_at


@dataclass(frozen=True)
class ReasoningFormat:
    """How a family of models writes down thoughts.

    Attributes:
        openings: Tags that begin a thought.
        closings: Tags that end it.
        answer: Tags around the answer, which are not part of it; None where it stands alone.
        separators: What stands between two thoughts, or between a thought and the answer.
        header_end: What a beginning tag goes on to, so that there may be more in it, such as the
            tool that a message is for; None where tags are whole.
    """

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    answer: tuple[str, str] | None = None
    separators: tuple[str, ...] = ()
    header_end: str | None = None

    @property
    def end(self) -> str:
        """What is written behind a thought that is to end at once."""
        return f"\n{''.join(self.closings[:1])}\n\n"

    @property
    def tags(self) -> tuple[str, ...]:
        """All of its tags, and what ends their headers."""
        ends = () if self.header_end is None else (self.header_end,)
        return (*self.openings, *self.closings, *(self.answer or ()), *self.separators, *ends)


FORMATS: tuple[ReasoningFormat, ...] = (
    # gpt-oss: channels, of which the last is the answer. What is meant for a tool names it, as in
    # `<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>`, or before that.
    ReasoningFormat(
        ("<|channel|>analysis", "<|channel|>commentary"),
        ("<|end|>", "<|call|>"),
        ("<|channel|>final", "<|end|>"),
        ("<|start|>assistant", "to="),
        "<|message|>",
    ),
    ReasoningFormat(("<|channel>thought",), ("<channel|>",)),  # Gemma 4
    ReasoningFormat(  # Cohere
        ("<|START_THINKING|>",),
        ("<|END_THINKING|>",),
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    ReasoningFormat(  # OpenThinker, Sky-T1
        ("<|begin_of_thought|>",),
        ("<|end_of_thought|>",),
        ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ),
    ReasoningFormat(  # Granite 3.2
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
    ),
    ReasoningFormat(("[THINK]",), ("[/THINK]",)),  # Mistral
    ReasoningFormat(("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus
    ReasoningFormat(("<seed:think>",), ("</seed:think>",)),
    ReasoningFormat(("◁think▷",), ("◁/think▷",)),  # Kimi-VL
    ReasoningFormat(("<reasoning>",), ("</reasoning>",)),  # Reka
    ReasoningFormat(("<thought>",), ("</thought>",)),  # EXAONE Deep
    ReasoningFormat(("<think>",), ("</think>",), ("<answer>", "</answer>")),  # Hunyuan
    ReasoningFormat(("<think>",), ("</think>",), ("<response>", "</response>")),  # Granite 3.3
    # Qwen, DeepSeek, GLM, SmolLM3, Phi-4, Nemotron, MiniMax and most others.
    ReasoningFormat(("<think>",), ("</think>",)),
)
"""What published models use; the first that a template knows counts."""


_LONGEST_OPENING = 16
"""Tokens at the end of a prompt among which `begins_inside` finds its tag."""


def reasoning_format(template: str | None) -> ReasoningFormat | None:
    """How a model writes thoughts, told from its chat template; None if it writes none."""
    written = template or ""
    for known in FORMATS:
        # A template that cuts old thoughts away may know their end alone.
        thinks = any(tag in written for tag in (*known.openings, *known.closings))
        if thinks and all(tag in written for tag in known.answer or ()):
            return known
    return None


@dataclass(frozen=True)
class Passage:
    """A piece of what a model writes.

    Attributes:
        text: Never empty.
        is_thought: Whether it belongs to the thought, not to the answer.
        log_probs: Of the tokens that it is made of, where they were asked for; a piece may be held
            back, and come with the next one's.
    """

    text: str
    is_thought: bool
    log_probs: tuple[TokenLogProb, ...] = ()


class _Place(Enum):
    """Where in its reply a model is."""

    BEFORE = auto()
    THOUGHT = auto()
    ANSWER = auto()


class ReasoningSplitter:
    """Tells thoughts from the answer as text comes in, whatever pieces it comes in.

    It holds back nothing but what may be the beginning of a tag. Tags are in no passage, nor is the
    white space behind them. Between two thoughts there is an empty line.
    """

    def __init__(self, known: ReasoningFormat | None, *, inside: bool = False) -> None:
        """Begin a reply.

        Args:
            known: The tags; None passes all text on as the answer.
            inside: Whether the prompt itself opened a thought, so that only its end follows.
        """
        self._known = known or ReasoningFormat((), ())
        self._place = _Place.BEFORE
        self._without_tag = _Place.THOUGHT if inside else _Place.ANSWER
        self._ends = self._known.closings if inside else ()
        self._skips_space = inside
        self._has_thought = inside
        self._has_answer = False
        self._held = ""
        self._gap = ""
        """What the next piece of a thought begins with, to stand apart from an earlier one."""
        self._space: str | None = None
        """The white space that the thought ends with so far; None before its first piece."""

    @property
    def thought_only(self) -> bool:
        """Whether there was a thought and no answer so far."""
        return self._has_thought and not self._has_answer

    @property
    def held_size(self) -> int:
        """Bytes that are held back."""
        return len(self._held.encode())

    def feed(self, text: str) -> list[Passage]:
        """Add text; returns what is known of it by now."""
        self._held += text
        return list(self._passages(ended=False))

    def end(self) -> list[Passage]:
        """What was held back and is no tag after all."""
        return list(self._passages(ended=True))

    def _passages(self, *, ended: bool) -> Iterator[Passage]:
        while self._held:
            if self._place is _Place.BEFORE:
                if not self._leave_start(ended=ended):
                    return
                continue
            shown, found, self._held = cut_at(self._held, self._ends)
            if ended and not found:
                shown, self._held = shown + self._held, ""
            if shown := shown.lstrip() if self._skips_space else shown:
                self._skips_space = False
                yield self._passage(shown)
            if not found:
                return
            self._go(_Place.BEFORE, ())

    def _passage(self, text: str) -> Passage:
        """A piece of the part that is being read."""
        if self._place is _Place.ANSWER:
            self._has_answer = True
            return Passage(text, is_thought=False)
        text, self._gap = self._gap + text, ""
        kept = text.rstrip()
        self._space = text[len(kept) :] if kept else (self._space or "") + text
        return Passage(text, is_thought=True)

    def _leave_start(self, *, ended: bool) -> bool:
        """Read a tag that stands before the answer, or find that none comes; False to wait."""
        known, text = self._known, self._held.lstrip()
        begins = known.answer[:1] if known.answer else ()
        tags = (*known.openings, *begins, *known.separators)
        found = next((tag for tag in tags if text.startswith(tag)), None)
        if found is None:
            if not ended and any(tag.startswith(text) for tag in tags):
                return False
            self._place = self._without_tag
            return True
        if known.header_end is None:
            self._held = text.removeprefix(found)
        elif known.header_end in text:
            header, _, self._held = text.partition(known.header_end)
            found = next((tag for tag in (*known.openings, *begins) if tag in header), found)
        elif not ended:
            return False
        else:  # cut in a header, which is no text
            self._held = text.removeprefix(found) if found in known.separators else ""
        self._begin(found)
        return True

    def _begin(self, tag: str) -> None:
        """Begin the part that a tag opens."""
        known = self._known
        if tag in known.openings:
            self._has_thought = True
            if self._space is not None:
                self._gap = "\n\n"[self._space.count("\n") :]
            self._go(_Place.THOUGHT, known.closings)
        elif known.answer and tag == known.answer[0]:
            self._go(_Place.ANSWER, known.answer[1:])
        else:
            self._go(_Place.BEFORE, ())

    def _go(self, place: _Place, ends: tuple[str, ...]) -> None:
        """Go on behind a tag, up to one of those that end this part."""
        self._place, self._ends = place, ends
        self._without_tag = _Place.ANSWER
        self._skips_space = True


@dataclass(frozen=True)
class Reply:
    """All that a model wrote.

    Attributes:
        reasoning: Its thought, empty if there is none.
        text: Its answer.
        thought_only: Whether it thought and did not come to an answer.
    """

    reasoning: str
    text: str
    thought_only: bool


def split_reply(text: str, known: ReasoningFormat | None, *, inside: bool = False) -> Reply:
    """Split a whole reply; see `ReasoningSplitter`."""
    splitter = ReasoningSplitter(known, inside=inside)
    passages = [*splitter.feed(text), *splitter.end()]
    return Reply(
        reasoning="".join(passage.text for passage in passages if passage.is_thought).strip(),
        text="".join(passage.text for passage in passages if not passage.is_thought),
        thought_only=splitter.thought_only,
    )


def begins_inside(
    prompt: Sequence[int],
    known: ReasoningFormat | None,
    spelled: Callable[[Sequence[int]], str],
) -> bool:
    """Whether a prompt ends with the tag that begins a thought, so that the reply is inside it.

    Args:
        prompt: Its token ids.
        known: The tags of the model.
        spelled: The text of token ids. Special tokens count: behind a user's `<think>`, one of
            them may be all that follows.
    """
    if known is None:
        return False
    end = spelled(prompt[-_LONGEST_OPENING:]).rstrip()
    return end.endswith(tuple(tag + (known.header_end or "") for tag in known.openings))


def split_stream(
    texts: Iterable[str], splitter: ReasoningSplitter, stops: StopStrings
) -> Iterator[Passage]:
    """Tell thoughts from the answer, which ends at a stop string.

    Args:
        texts: Pieces of a reply, in order.
        splitter: At its beginning.
        stops: Where the answer ends; a thought may hold them.
    """

    def shown(passages: Iterable[Passage]) -> Iterator[Passage]:
        for passage in passages:
            if passage.is_thought:
                yield passage
            elif text := stops.feed(passage.text):
                yield Passage(text, is_thought=False)
            if stops.found:
                return

    for text in texts:
        yield from shown(splitter.feed(text))
        if stops.found:
            return
    yield from shown(splitter.end())
    if rest := stops.end():
        yield Passage(rest, is_thought=False)
