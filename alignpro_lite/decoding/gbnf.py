"""GBNF, llama.cpp's form of grammars, in the form that llguidance reads.

Every character becomes a terminal of its own, so that no longest match can swallow what follows it:
`[a-z]+ "b"` then means what it means in llama.cpp. Rules may begin with themselves, which llama.cpp
refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from alignpro_lite.errors import InputError

ROOT_RULE = "root"
_MOST_CHARACTERS = 200_000
_DEEPEST = 100
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\r\n]*)
    |(?P<head>[\w-]+[ \t]*::=)
    |(?P<rule>[\w-]+)
    |(?P<literal>"(?:[^"\\\r\n]|\\.)*")
    |(?P<set>\[(?:[^\]\\\r\n]|\\.)*\])
    |(?P<repeat>[*+?]|\{[ \t]*\d+[ \t]*(?:,[ \t]*\d*[ \t]*)?\})
    |(?P<any>\.)
    |(?P<mark>[()|])""",
    re.VERBOSE | re.ASCII,
)
_CHARACTER = re.compile(
    r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})|\\(.)|([^\\])"
)
_TIMES: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}


@dataclass(frozen=True)
class _Terminal:
    """A single character, as a regular expression; empty for no character."""

    pattern: str


@dataclass(frozen=True)
class _Reference:
    rule: str


@dataclass(frozen=True)
class _Sequence:
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class _Choice:
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class _Repeated:
    part: _Part
    least: int
    most: int | None


_Part: TypeAlias = _Terminal | _Reference | _Sequence | _Choice | _Repeated


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


def lark_rules(text: str, answer: str) -> str:
    """The rules of a grammar in Lark's form, as llguidance reads it.

    Args:
        text: A grammar in GBNF.
        answer: The name to give to `root`; no other name begins with it.

    Raises:
        InputError: It is no grammar, has no `root` or lacks a rule; or no text of it ever ends.
    """
    if len(text) > _MOST_CHARACTERS:
        raise _unusable(f"has {len(text):,} characters, above {_MOST_CHARACTERS:,}")
    rules = _Reader(text).rules()
    if ROOT_RULE not in rules:
        raise _unusable(f"has no rule {ROOT_RULE}")
    missing = {name for part in rules.values() for name in _references(part)} - rules.keys()
    if missing:
        raise _unusable(f"names rules that it does not have: {', '.join(sorted(missing))}")
    if ROOT_RULE not in _ending(rules):
        raise _unusable(f"has no text that ends: {ROOT_RULE} always needs itself again")
    names = {name: f"{answer}_{number}" for number, name in enumerate(rules)}
    names[ROOT_RULE] = answer
    return "\n".join(f"{names[name]}: {_written(part, names)}" for name, part in rules.items())


class _Reader:
    """Reads a grammar, token by token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def rules(self) -> dict[str, _Part]:
        """Every rule by its name.

        Raises:
            InputError: It is no grammar.
        """
        found: dict[str, _Part] = {}
        while (head := self._take("head")) is not None:
            name = head.text.removesuffix("::=").strip()
            if name in found:
                raise self._error(f"has the rule {name} twice")
            found[name] = self._choice()
        if self._next < len(self._tokens):
            raise self._error("is not GBNF")
        return found

    def _choice(self) -> _Part:
        parts = [self._sequence()]
        while self._take("mark", "|"):
            parts.append(self._sequence())
        return _Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while (part := self._item()) is not None:
            if repeat := self._take("repeat"):
                part = self._repeated(part, repeat)
            parts.append(part)
        return _Sequence(tuple(parts))

    def _repeated(self, part: _Part, repeat: _Token) -> _Part:
        if repeat.text in _TIMES:
            return _Repeated(part, *_TIMES[repeat.text])
        least, comma, most = (text.strip() for text in repeat.text[1:-1].partition(","))
        upper = None if comma and not most else int(most or least)
        if upper is not None and upper < int(least):
            raise self._error(f"repeats {repeat.text}, at least more often than at most", repeat)
        return _Repeated(part, int(least), upper)

    def _item(self) -> _Part | None:
        if rule := self._take("rule"):
            return _Reference(rule.text)
        if literal := self._take("literal"):
            codes = self._codes(literal, literal.text[1:-1])
            return _Sequence(tuple(_Terminal(f"\\x{{{code:x}}}") for code in codes))
        if characters := self._take("set"):
            return self._set(characters)
        if self._take("any"):
            return _Terminal("(?s:.)")
        return self._group() if self._take("mark", "(") else None

    def _group(self) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"has more than {_DEEPEST} parentheses in one another")
        part = self._choice()
        if not self._take("mark", ")"):
            raise self._error("lacks a )")
        self._depth -= 1
        return part

    def _set(self, token: _Token) -> _Terminal:
        inside = token.text[1:-1]
        negated = inside.startswith("^")
        ranges: list[str] = []
        characters = [match[0] for match in _CHARACTER.finditer(inside, int(negated))]
        while characters:
            first = last = self._codes(token, characters.pop(0))[0]
            if len(characters) > 1 and characters[0] == "-":
                last = self._codes(token, characters[1])[0]
                del characters[:2]
            if last < first:
                raise self._error(f"has a range that ends before it begins: {token.text}", token)
            ranges.append(f"\\x{{{first:x}}}-\\x{{{last:x}}}")
        if not ranges:
            raise self._error("has a set without a character", token)
        return _Terminal(f"[{'^' * negated}{''.join(ranges)}]")

    def _codes(self, token: _Token, text: str) -> list[int]:
        """The code points of a text with escapes."""
        codes = []
        for match in _CHARACTER.finditer(text):
            *digits, escaped, plain = match.groups()
            known = _ESCAPED.get(escaped) if escaped else plain
            code = int("".join(filter(None, digits)) or "-1", 16) if known is None else ord(known)
            if not 0 <= code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise self._error(f"has {match[0]}, which is no character", token)
            codes.append(code)
        return codes

    def _take(self, kind: str, text: str | None = None) -> _Token | None:
        """The next token, if it is of a kind; white space never is."""
        if self._next == len(self._tokens):
            return None
        token = self._tokens[self._next]
        if token.kind != kind or text not in (None, token.text):
            return None
        self._next += 1
        return token

    def _error(self, problem: str, token: _Token | None = None) -> InputError:
        where = token or (self._tokens[self._next] if self._next < len(self._tokens) else None)
        place = len(self._text) if where is None else where.place
        return _unusable(f"{problem} (line {self._text.count(chr(10), 0, place) + 1})")


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            line = text.count("\n", 0, place) + 1
            raise _unusable(f"is not GBNF: line {line} has {text[place : place + 20]!r}")
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match[0], place)
        place = match.end()


def _references(part: _Part) -> Iterator[str]:
    match part:
        case _Reference(rule):
            yield rule
        case _Sequence(parts) | _Choice(parts):
            for inner in parts:
                yield from _references(inner)
        case _Repeated(part=inner):
            yield from _references(inner)


def _ending(rules: Mapping[str, _Part]) -> set[str]:
    """The rules that stand for at least one text."""
    known: set[str] = set()
    while found := {name for name in rules.keys() - known if _ends(rules[name], known)}:
        known |= found
    return known


def _ends(part: _Part, known: set[str]) -> bool:
    """Whether a part stands for a text, if some rules do."""
    match part:
        case _Reference(rule):
            return rule in known
        case _Sequence(parts):
            return all(_ends(inner, known) for inner in parts)
        case _Choice(parts):
            return any(_ends(inner, known) for inner in parts)
        case _Repeated(inner, least):
            return least == 0 or _ends(inner, known)
    return True


def _written(part: _Part, names: Mapping[str, str]) -> str:
    """A part in Lark's form."""
    match part:
        case _Reference(rule):
            return names[rule]
        case _Sequence(parts):
            return f"({' '.join(_written(inner, names) for inner in parts)})" if parts else '""'
        case _Choice(parts):
            return f"({' | '.join(_written(inner, names) for inner in parts)})"
        case _Repeated(inner, least, most):
            return f"{_written(inner, names)}{{{least},{'' if most is None else most}}}"
        case _Terminal(pattern):
            return f"/{pattern}/"


def _unusable(problem: str) -> InputError:
    return InputError(
        f"The grammar {problem}.",
        'Write GBNF as llama.cpp documents it, such as `root ::= "yes" | "no"`.',
    )
