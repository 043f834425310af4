"""Prompts and rewrites as the prompter's token ids, the same way in training and at run time.

A prompter is asked without a thought where its chat template has a switch for it: a rewrite is
shorter than most thoughts. What it thinks all the same is no part of the rewrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.reasoning import Reply, begins_inside, reasoning_format, split_reply
from alignpro_lite.decoding.thinking import switch_values
from alignpro_lite.decoding.tokenizer import TextTokenizer
from alignpro_lite.prompter.bundle import Tokens
from alignpro_lite.prompter.template import RewriteTemplate


class PrompterTokenizer:
    """A tokenizer that knows the template and the special tokens of its prompter."""

    def __init__(self, tokenizer: Tokenizer, known: Tokens, template: RewriteTemplate) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: The prompter's own; it is set to read markers in a text as plain text.
            known: Special tokens and the chat template.
            template: What the prompter is asked.
        """
        self._known = known
        self._text = TextTokenizer(tokenizer, known.chat_template, known.names)
        self._reasoning = reasoning_format(known.chat_template)
        self.template = template

    @property
    def stop(self) -> tuple[int, ...]:
        """Ids that end a rewrite; the model's own end of turn comes first."""
        return self._known.stop

    def request(self, prompt: str, earlier: Sequence[Message] = ()) -> list[int]:
        """Token ids that ask the prompter for a rewrite of x; see `RewriteTemplate.messages`."""
        known = self._known
        ids = self._text.encode(
            render(
                known.chat_template,
                self.template.messages(prompt, earlier),
                known.names,
                switch_values("off"),
            )
        )
        if known.bos is not None and ids[:1] != [known.bos]:
            ids.insert(0, known.bos)
        return ids

    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the prompter would write it, stop token included."""
        return [*self._text.encode_text(output), self.stop[0]]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an output, without special tokens and without what was thought before it."""
        return self.split(tokens).text

    def split(self, tokens: Sequence[int]) -> Reply:
        """An output and what was thought before it, without special tokens."""
        return split_reply(self._text.decode(tokens), self._reasoning, inside=self._begins_inside)

    @cached_property
    def _begins_inside(self) -> bool:
        """Whether requests end with the tag that begins a thought."""
        if self._reasoning is None:
            return False  # without asking the template
        return begins_inside(self.request("Hello"), self._reasoning, self._text.decode_all)
