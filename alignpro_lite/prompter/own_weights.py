"""A prompter that costs no memory: the target's own weights write the rewrites.

Without an adapter they are ρ_sft. Its rewrites are then decoded where the answers are, so that one
KV cache holds the prefix of the template beside those of conversations. With a GGUF LoRA they are
ρ_θ: llama.cpp applies an adapter to a whole context, so ρ_θ has a context of its own on the same
weights, and ρ_sft is still the target's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.engine import Engine, Stream
from alignpro_lite.decoding.reasoning import (
    ReasoningFormat,
    Reply,
    split_reply,
)
from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.errors import AlignProError, BundleError, ContextOverflowError
from alignpro_lite.prompter.card import card_of
from alignpro_lite.prompter.lora_file import LoraFile
from alignpro_lite.prompter.profile import PrompterProfile
from alignpro_lite.prompter.prompter import Prompter, read_scores, started_together
from alignpro_lite.registry.entries import SELF, RewriteMode
from alignpro_lite.target.llama import LoraAdapter, TargetSampler
from alignpro_lite.target.target import LlamaTarget

_BYTES_A_TOKEN = 3
"""Of a template, at least; vocabularies of today's models need fewer tokens."""
_ROUND = 4
"""Rewrites that a context has room for beside a conversation; more are decoded in turns."""


@dataclass(frozen=True)
class OwnWeights:
    """How the target's own weights are asked for rewrites.

    Attributes:
        profile: How they are asked.
        adapter: What makes them ρ_θ; None leaves them ρ_sft.
    """

    profile: PrompterProfile
    adapter: Path | None

    @property
    def context(self) -> int:
        """Tokens of context that a request and a few rewrites take, the prompt not counted."""
        asked = sum(len(turn.content.encode()) for turn in self.profile.template.messages(""))
        return asked // _BYTES_A_TOKEN + _ROUND * self.profile.max_tokens


def own_weights(mode: RewriteMode | None, lora: LoraFile | None) -> OwnWeights:
    """The weights of a target as its prompter: asked as their adapter was trained, or as a base is.

    Args:
        mode: How its output becomes x'; None for the way of the adapter, else augment.
        lora: The adapter.

    Raises:
        BundleError: The adapter was trained in another mode.
    """
    if lora is None:
        return OwnWeights(card_of(SELF, None, mode).profile(SELF, is_trained=False), None)
    card = lora.card or card_of(SELF, None, mode)
    if mode not in (None, card.template.mode):
        raise BundleError(
            f"The adapter {lora.path} was trained to {card.template.mode}, found the mode {mode}.",
            f"Pass --prompter {SELF}+{lora.path}.",
        )
    name = f"{SELF}+{lora.path.name}"
    return OwnWeights(card.profile(name, is_trained=not card.is_reference), lora.path)


class SelfPrompter(Prompter):
    """A loaded target as its own prompter; whoever loaded the target closes it afterwards."""

    def __init__(
        self, target: LlamaTarget, own: OwnWeights, context: int, scale: float = 1.0
    ) -> None:
        """Ask a target for rewrites.

        Args:
            target: The weights.
            own: How they are asked.
            context: Tokens that all sequences of ρ_θ together may hold, if it has an adapter.
            scale: What the adapter is multiplied by: 1 is ρ_θ, 0 is ρ_sft.

        Raises:
            DeviceError: There is not enough memory for a second context.
            ModelFileError: llama.cpp cannot use the adapter with these weights.
        """
        self.profile = own.profile
        self.target = target
        self._reference = self._policy = target.engine
        if own.adapter is None:
            return
        if not own.profile.is_trained:  # the adapter is what makes ρ_sft of the weights
            adapter = LoraAdapter(own.adapter, 1.0)
            self._reference = self._policy = target.adapted(adapter, context)
        elif scale != 0:
            self._policy = target.adapted(LoraAdapter(own.adapter, scale), context)

    @property
    def sequences(self) -> int:
        """How many rewrites it samples together at most."""
        return self.target.settings.sequences

    @property
    def failure(self) -> AlignProError | None:
        """Why it writes no more rewrites; None while its engines run."""
        return self._policy.failure

    def close(self) -> None:
        """Free the context of the adapter; the target stays loaded."""
        if self._policy is not self.target.engine:
            self._policy.close()

    def score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs with ρ_θ; see `Prompter.score`."""
        asked = self.prompt_tokens(prompt, earlier)
        return _scored(self._policy, asked, outputs, cancellation)

    def reference_score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs with the weights as they are; see `Prompter.reference_score`."""
        asked = self.prompt_tokens(prompt, earlier)
        return _scored(self._reference, asked, outputs, cancellation)

    def require_reference(self) -> None:
        """Do nothing: the target's weights without an adapter are loaded."""

    def require_room(self, asked: Sequence[int]) -> None:
        """Refuse token ids behind which no rewrite fits; see `Prompter.require_room`."""
        self._policy.require_room(len(asked), self.profile.max_tokens)

    def submit(
        self, prompt: Sequence[int], samplers: Sequence[TargetSampler], max_tokens: int
    ) -> list[Stream[TargetSampler]]:
        """Decode token ids with ρ_θ, as many sequences at once as fit; see `Prompter.submit`.

        Raises:
            ContextOverflowError: The request and one rewrite do not fit.
        """
        return _submitted(self._policy, prompt, samplers, max_tokens)

    def prompt_tokens(self, prompt: str, earlier: Sequence[Message] = ()) -> list[int]:
        """Token ids that ask the target for a rewrite of x, without a thought if it reasons."""
        asked = self._asked(prompt, earlier)
        return [*asked, *self.target.template_tokens(self._skipped_thought)]

    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the target would write it, stop token included."""
        return self.target.encode(output)

    def split(self, tokens: Sequence[int]) -> Reply:
        """An output and what was thought before it, without special tokens."""
        text = b"".join(map(self.target.spoken, tokens)).decode("utf-8", errors="replace")
        known, begun = self.target.reasoning, self._skipped_thought
        found = split_reply(begun + text, known, inside=self._begins_inside)
        # A thought that was skipped is none, so that an empty hint is one.
        return replace(found, thought_only=found.thought_only and bool(found.reasoning))

    def _asked(self, prompt: str, earlier: Sequence[Message] = ()) -> list[int]:
        target, messages = self.target, self.template.messages(prompt, earlier)
        return target.prompt_tokens(messages, target.thinking.briefly("auto"))

    @cached_property
    def _begins_inside(self) -> bool:
        """Whether the chat template itself begins the thought."""
        return self.target.begins_thought(self._asked("Hello"))

    @cached_property
    def _skipped_thought(self) -> str:
        """What takes the place of a thought in every request.

        A rewrite has fewer tokens than most thoughts, which would leave none for it. Where a switch
        turns thoughts off, the chat template writes it.
        """
        known, switch = self.target.reasoning, self.target.thinking.default
        if known is None or (switch is not None and not self._begins_inside):
            return ""
        return _no_thought(known, inside=self._begins_inside)


def _scored(
    engine: Engine[TargetSampler],
    asked: Sequence[int],
    outputs: Sequence[Sequence[int]],
    cancellation: Cancellation | None,
) -> list[float]:
    if not outputs:
        return []
    samplers = [GivenTokens(output) for output in outputs]
    streams = _submitted(engine, asked, samplers, max(map(len, outputs)))
    return read_scores(streams, outputs, cancellation)


def _submitted(
    engine: Engine[TargetSampler],
    prompt: Sequence[int],
    samplers: Sequence[TargetSampler],
    max_tokens: int,
) -> list[Stream[TargetSampler]]:
    try:
        return started_together(engine, prompt, samplers, max_tokens)
    except ContextOverflowError as error:
        raise ContextOverflowError(
            f"A rewrite does not fit: {error.problem}",
            "Shorten the prompt, raise --ctx, or pass --mode off to send it as it is.",
        ) from error


def _no_thought(known: ReasoningFormat, *, inside: bool) -> str:
    """How a model writes that it has thought, and now answers."""
    opening = "" if inside else known.openings[0]
    if known.answer is None:
        return f"{opening}\n\n{known.closings[0]}\n\n"
    ended = f"{known.closings[0]}{''.join(known.separators[:1])}" if inside else ""
    return f"{ended}{known.answer[0]}{known.header_end or ''}"
