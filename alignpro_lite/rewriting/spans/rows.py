"""Lines that are code without a fence, rows of a table, or quoted behind a >."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

_END = r"(?:(?<=[;{=)}])|(?<=[;{=)}]\r))$"
_GREEK = "\u0370-\u03ff\u1f00-\u1fff"
"""Letters after which a semicolon asks a question."""
_CODE_LINE = re.compile(
    rf"""(?mx)^(?:
      (?:[ ]{{4}}|[ ]{{0,3}}\t)[^\n]*?\S[^\n]*+       # indented, as in Markdown
    | [ \t]*+(?:
        (?:async[ ])?def[ ]\w++[ ]?\([^\n]*+ | class[ ]\w++[ ]?[:({{][^\n]*+
      | @\w[\w.]*+(?:\([^\n]*+)?$
      | import[ ][\w.]++(?:[ ]as[ ]\w++)?[;\r]*+$ | from[ ][\w.]++[ ]import[ ][^\n]++
      | [#](?:include|define|ifdef|ifndef|endif|pragma)\b[^\n]*+ | [#]!/[^\n]++
      | (?:if|elif|else|for|while|try|except|finally|with|switch|match|case|do)\b[^\n]*+
        (?:(?<=[:{{])|(?<=[:{{]\r))(?:\n[ \t]++\S[^\n]*+)++
      | (?:public|private|protected|static|const|let|var|function|fn|func|impl|struct|package)\b
        [^\n]*+{_END}
      | SELECT[ ][^\n]*?\bFROM\b[^\n]*+
      | (?:INSERT[ ]INTO|DELETE[ ]FROM|(?:CREATE|ALTER|DROP)[ ]TABLE)\b[^\n]*+
      | (?:FROM|WHERE|JOIN|VALUES|(?:ORDER|GROUP)[ ]BY)\b[^\n]*+
      | (?i:select|update|delete|insert)[ ][^\n]*+
        (?:\n[ \t]*+(?i:from|where|set|values|join|order[ ]by|group[ ]by|limit|having|select)
        [ ][^\n]*+)++
      | TRUNCATE[ ]TABLE\b[^\n]*+
      | (?:sudo|git[ ](?:add|branch|checkout|clone|commit|fetch|log|merge|pull|push|rebase|reset)
        |(?:pip3?|conda|brew|apt|apt-get|npm|yarn|pnpm|cargo|gem)[ ](?:install|run|add|update)
        |docker[ ](?:run|build|exec|pull|push|compose)|kubectl[ ]\w++|curl|wget|chmod|cd)
        [ ][^\n]*+(?<![.?!:])$
      | (?:>>>|\$|In[ ]\[\d*\]:|PS[ ]\S*>)[ ][^\n]++
      | [\w.\[\]]++(?:,[ ]?[\w.\[\]]++)*+[ ]?[-+*/|&^%:]?=[ ]?[^\s=][^\n]*+
      | [^\n]*+(?:(?<={{)|(?<={{\r)|(?<=[^{_GREEK}];)|(?<=[^{_GREEK}];\r))$
      | [}})\]]++[;,)]*+\r?$ | //[^\n]*+ | /\*[^\n]*+ | \*/
    ))"""
)
_PIPED = re.compile(
    r"(?m)^[ \t]*+[|│┃║+┌├└╔╠╚][^\n]*+(?:\n[ \t]*+[|│┃║+┌├└╔╠╚][^\n]*+)*+"
    r"|^[^\n|]++\|[^\n]*+(?:\n[^\n|]++\|[^\n]*+)++"
    r"|^[^\n|]++(?<=[ ])\|[ ][^\n|]++(?<=[ ])\|[ ][^\n]++"
)
_TABBED = re.compile(r"(?m)^[^\s][^\n\t]*+\t[^\n]*+(?:\n[^\s][^\n\t]*+\t[^\n]*+)*+")
_ALIGNED = re.compile(
    r"(?m)^(?:(?=[^\n]{1,200}$)[ ]*+\S(?:[^\n ]|[ ](?![ ]))*+(?<![.!?:])[ ]{2,}+\S[^\n]*+"
    r"(?:\n|\Z)){2,}+"
)
_QUOTED = re.compile(r"(?m)^[ ]{0,3}>[^\n]*+(?:\n[ ]{0,3}>[^\n]*+)*+")
_SEPARATED = re.compile(r"(?m)^[^\n,;]*+[,;][^\n]*+$")


def code_lines(text: str) -> Iterator[tuple[int, int]]:
    """Blocks of lines that are indented or read like a statement, a declaration or a shell line."""
    return _blocks(text, (hit.span() for hit in _CODE_LINE.finditer(text)))


def quoted_lines(text: str) -> Iterator[tuple[int, int]]:
    """Blocks of lines that begin with a >, as a mail or Markdown quotes."""
    return (hit.span() for hit in _QUOTED.finditer(text))


def table_rows(text: str) -> Iterator[tuple[int, int]]:
    """Rows whose cells are divided by pipes, tabs, commas, semicolons or runs of spaces."""
    for pattern in (_PIPED, _TABBED, _ALIGNED):
        for hit in pattern.finditer(text):
            yield hit.span()
    rows = [(hit.span(), _cells(hit[0])) for hit in _SEPARATED.finditer(text)]
    for cells, group in groupby(rows, key=lambda row: row[1]):
        if cells is not None:
            for start, end in _blocks(text, (span for span, _ in group)):
                if "\n" in text[start:end]:
                    yield start, end


def _cells(line: str) -> tuple[str, int] | None:
    """Separator and count of the cells of a line; None for prose."""
    separator = ";" if ";" in line else ","
    count = line.rstrip(f"{separator} \t\r").count(separator)
    if count == 0 or line.rstrip()[-1:] in ".!?:" or (count < 2 and f"{separator} " in line):
        return None
    return separator, count


def _blocks(text: str, lines: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Lines that follow one another, blank ones between them left aside, as one span."""
    block: tuple[int, int] | None = None
    for start, end in lines:
        if block and not text[block[1] : start].strip():
            block = block[0], end
            continue
        if block:
            yield block
        block = start, end
    if block:
        yield block
