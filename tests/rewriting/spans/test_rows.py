"""Lines that are code without a fence, and rows of tables."""

from __future__ import annotations

import pytest

from tests.support.changed_spans import require_noticed


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("Fix:\n\n    x = 1\n    y = 2\n", "Fix:\n\n    x = 1\n    y = 3\n"),
        ("Fix:\n\tfoo bar\n", "Fix:\n\tfoo baz\n"),
        ("def f(a, b):\n    return a", "def g(a, b):\n    return a"),
        ("for (int i=0;i<n;i++) {\n  x();\n}", "for (int i=1;i<n;i++) {\n  x();\n}"),
        ("| a | b |", "| a | c |"),
        ("x\ty", "x\tz"),
        ("Name,Age\nBob,Old", "Name,Age\nBob,New"),
        ("a;b;c\nd;e;f", "a;b;c\nd;e;g"),
        ("Name   Grade\nJohn   good\nMary   bad", "Name   Grade\nJohn   good\nMary   good"),
        ("Which: red | blue | green", "Which: red | blue | black"),
        ("E = mc^2", "E = mc^3"),
        ("SELECT a FROM b", "SELECT c FROM b"),
        ("import os\nprint(os)", "import sys\nprint(os)"),
        ("$ ls -l foo", "$ ls -l bar"),
        ("x = foo", "x = bar"),
        ("if a:\n    b", "if c:\n    b"),
    ],
)
def test_a_change_of_a_line_of_code_or_a_table_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("> see you soon\n> all of you\nReply", "> see you soon\n> some of you\nReply"),
        ("Reply to\n>see you soon", "Reply to\n>see you then"),
    ],
)
def test_a_change_of_a_quoted_line_is_noticed(prompt, rewrite):
    """Regression: lines that a mail quotes with > could be rewritten."""
    require_noticed(prompt, rewrite)
