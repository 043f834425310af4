"""Constrained decoding: which tokens may come next. The only file that imports llguidance.

llguidance was chosen over llama.cpp's own grammars, which cost no dependency (it is a wheel of 3 MB
that needs nothing else): of a JSON Schema it keeps more, and refuses by name what it cannot keep,
where llama.cpp's converter drops what it does not know; docs/structured.md has the figures. It is
written in Rust, so a hostile grammar is an error; llama.cpp's parser ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignpro_lite.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from numpy.typing import NDArray

_MARK = b"\xff"
"""What llguidance expects before the name of a token that is no text."""
_MOST_ITEMS = 20_000
"""States of a grammar at once; ten times llguidance's own limit, for objects of many properties."""
_MOST_ITEMS_A_STEP = 1_000_000
_LONGEST_REASON = 240
_WHERE = re.compile(r"(at )?\d+\(\d+\): |failed to compile JSON schema: ")
_SOURCE = re.compile(
    r"\n\s*\d+ \| .*|\s*<(state|backtrace)>.*|\. Enable 'coerce_one_of'.*", re.DOTALL
)
"""What its errors show of the grammar, which no user wrote, and of options that no user has."""
_KEYWORDS = {"regex parse error": "pattern: ", "Resource '": "$ref: ", "Pointer '": "$ref: "}
"""What is missing in some of its errors: which keyword they are about."""


class GuideVocabulary:
    """The tokens of a model as llguidance needs them: a second's work, done once for a model."""

    def __init__(
        self, pieces: Sequence[bytes], stops: Sequence[int], tokenize: Callable[[str], list[int]]
    ) -> None:
        """Index the tokens.

        Args:
            pieces: The bytes of every token; those without any are no text.
            stops: The tokens that end an answer, at least one.
            tokenize: The tokens of a text as the model writes it.

        Raises:
            InputError: No token ends an answer.
            MissingDependencyError: llguidance is not installed or does not load.
        """
        if not stops:
            raise _refused("the model has no token that ends an answer")
        try:
            from llguidance import LLTokenizer
            from llguidance._tokenizer import TokenizerWrapper
        except ImportError as error:
            raise MissingDependencyError(
                f"Constrained answers need llguidance, which does not load ({error}).",
                "Run `pip install llguidance`.",
            ) from error
        self._size = len(pieces)
        wrapped = TokenizerWrapper(_Tokens(pieces, stops, tokenize))
        self._tokens = LLTokenizer(wrapped, n_vocab=self._size, eos_token=list(stops))

    def guide(self, grammar: str) -> Guide:
        """A guide at the beginning of a reply.

        Args:
            grammar: As `answer_grammar` and `reply_grammar` write it.

        Raises:
            InputError: It cannot be kept.
        """
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(max_items_in_row=_MOST_ITEMS, step_max_items=_MOST_ITEMS_A_STEP)
        lark = LLMatcher.grammar_from_lark(grammar)
        matcher = LLMatcher(self._tokens, lark, log_level=0, limits=limits)
        return Guide(matcher, self._size)


class _Tokens:
    """A tokenizer in the form that llguidance takes."""

    def __init__(
        self, pieces: Sequence[bytes], stops: Sequence[int], tokenize: Callable[[str], list[int]]
    ) -> None:
        self.tokens = [piece or _MARK + b"<%d>" % token for token, piece in enumerate(pieces)]
        for token in stops:
            self.tokens[token] = _MARK + b"<%d>" % token
        self.eos_token_id = stops[0]
        self.bos_token_id = None
        self.special_token_ids = list(stops)
        self._tokenize = tokenize

    def __call__(self, text: str) -> list[int]:
        return self._tokenize(text)


class Guide:
    """Which tokens may come next in one reply."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        """Begin a reply.

        Raises:
            InputError: The grammar cannot be kept.
        """
        self._matcher = matcher
        self._size = size
        self._require_working()

    def copy(self) -> Guide:
        """Another one at the same place."""
        return Guide(self._matcher.deep_copy(), self._size)

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each token may come next, shape (vocab,); a stop token where the reply may end.

        Raises:
            InputError: The grammar is too complex here, or allows nothing that the model can write.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._require_working()
        bits = np.unpackbits(mask, count=self._size, bitorder="little")
        if not bits.any():
            raise _refused("no token of the model can follow")
        allowed: NDArray[np.bool_] = bits.view(np.bool_)
        return allowed

    def accept(self, token: int) -> None:
        """Go on behind a token.

        Raises:
            InputError: It is not allowed.
        """
        self._matcher.consume_token(token)
        self._require_working()

    def _require_working(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._matcher.get_error())


def _refused(error: str) -> InputError:
    reason = " ".join(_SOURCE.sub("", _WHERE.sub("", error)).split())
    keyword = next((word for known, word in _KEYWORDS.items() if reason.startswith(known)), "")
    return InputError(
        "The constraint on the answer cannot be kept: "
        f"{keyword}{reason[:_LONGEST_REASON].rstrip('. ')}.",
        "Simplify it; docs/structured.md lists what is kept.",
    )
