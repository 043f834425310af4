"""Which characters of a rendered conversation the template wrote, and which its messages.

A template is rendered a second time with its own constants in another shade: every character moved
by a distance, into planes of Unicode that hold none. What searches or compares sees plain text, so
both renderings take the same way, and where they differ the template speaks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

PLAIN_FILTER = "_plain"
"""The filter that a shaded template needs, `Shade.plain`."""
_SPAN = 0x40000
"""Characters that can be shaded: those of the planes in which Unicode has writing."""
_SHADEABLE = re.compile(rf"[^\s{chr(_SPAN)}-\U0010ffff]+")

_MEASURING = frozenset({"startswith", "endswith", "find", "rfind", "index", "rindex", "count"})
"""Methods that return no text."""
_SEARCHING = _MEASURING | {
    *("split", "rsplit", "partition", "rpartition", "replace", "get"),
    *("strip", "lstrip", "rstrip", "removeprefix", "removesuffix"),
}
"""Methods that look for their first argument."""
_FIELDS = {
    "format": re.compile(r"(\{[^{}]*\})"),
    "%": re.compile(r"(%[-+ #0-9.*]*[a-zA-Z%])"),
}
"""What a layout leaves to its arguments, by how these are put in."""
_WRITING = {"default": 0, "d": 0, "join": 0, "replace": 1}
"""Filters that write arguments out, and the first one that they write."""


@dataclass(frozen=True)
class Shade:
    """A second set of characters, which looks like no text.

    Attributes:
        distance: From a character to its shaded one.
    """

    distance: int

    def is_free(self, text: str) -> bool:
        """Whether a text holds nothing that looks shaded."""
        return text.isascii() or not self._shaded.search(text)

    def shaded(self, text: str) -> str:
        """A text in this shade; white space has none, because templates trim it."""
        return _SHADEABLE.sub(lambda found: _moved(found[0], self.distance), text)

    def plain(self, value: object) -> object:
        """A text without its shade; any other value as it is."""
        if not isinstance(value, str) or value.isascii():
            return value
        return self._shaded.sub(lambda found: _moved(found[0], -self.distance), value)

    def stretches(self, text: str) -> list[tuple[int, int]]:
        """Where a text is shaded: (start, end) each, in order."""
        return [found.span() for found in self._shaded.finditer(text)]

    def other_stretches(self, text: str) -> list[tuple[int, int]]:
        """Where a text is not shaded: (start, end) each, in order."""
        shaded = [place for span in self.stretches(text) for place in span]
        pairs = zip([0, *shaded[1::2]], [*shaded[::2], len(text)], strict=True)
        return [(start, end) for start, end in pairs if start < end]

    @property
    def _shaded(self) -> re.Pattern[str]:
        return re.compile(f"[{chr(self.distance)}-{chr(self.distance + _SPAN - 1)}]+")


SHADES = (Shade(0x40000), Shade(0x80000))
"""Unicode has assigned nothing there. Anybody can write it all the same, hence two."""


def shade_constants(template: nodes.Template, shade: Shade) -> None:
    """Shade what a template writes, and let it compare and search plain text.

    Args:
        template: Its syntax tree, which is changed.
        shade: Of its texts and of the texts in its expressions.
    """
    _Shader(shade).visit(template)


class _Shader(NodeTransformer):
    """Constants that are not visited stay plain: names, keys, and what is compared with."""

    def __init__(self, shade: Shade) -> None:
        self._shade = shade

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        node.data = self._shade.shaded(node.data)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, str):
            node.value = self._shade.shaded(node.value)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        node.expr = _plain(node.expr)
        for operand in node.ops:
            operand.expr = _plain(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        if node.args:
            node.node = _plain(node.node)
            node.args = [_plain(argument) for argument in node.args]
        else:
            self.generic_visit(node)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        node.node = self.visit(node.node)
        if not isinstance(node.arg, nodes.Slice):
            node.arg = _plain(node.arg)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        node.value = self.visit(node.value)
        return node

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:  # noqa: N802
        node.left = self._layout(node.left, "%")
        node.right = self.visit(node.right)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        called = node.node
        if isinstance(called, nodes.Name) and called.name == "strftime_now":
            return node
        searched = 0
        if isinstance(called, nodes.Getattr):
            called.node = self._receiver(called)
            searched = int(called.attr in _SEARCHING)
        node.args = [
            _plain(argument) if place < searched else self.visit(argument)
            for place, argument in enumerate(node.args)
        ]
        node.kwargs = [self.visit(keyword) for keyword in node.kwargs]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        written = 0 if node.name == "format" else _WRITING.get(node.name, len(node.args))
        if node.name == "format" and node.node is not None:
            node.node = self._layout(node.node, "%")
        elif node.node is not None:
            node.node = self.visit(node.node)
        node.args = [
            _plain(argument) if place < written else self.visit(argument)
            for place, argument in enumerate(node.args)
        ]
        return node

    def _receiver(self, method: nodes.Getattr) -> nodes.Expr:
        if method.attr == "format":
            return self._layout(method.node, "format")
        visited: nodes.Expr = self.visit(method.node)
        return _plain(visited) if method.attr in _MEASURING else visited

    def _layout(self, node: nodes.Expr, kind: str) -> nodes.Expr:
        """A layout such as `'<{}>'`, whose fields must stay readable."""
        if isinstance(node, nodes.Const) and isinstance(node.value, str):
            parts = _FIELDS[kind].split(node.value)
            parts[::2] = map(self._shade.shaded, parts[::2])
            node.value = "".join(parts)
            return node
        visited: nodes.Expr = self.visit(node)
        return visited


def _plain(node: nodes.Expr) -> nodes.Expr:
    """An expression whose text, if it is one, loses its shade."""
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, PLAIN_FILTER, [], [], None, None, lineno=node.lineno)


def _moved(text: str, by: int) -> str:
    return "".join(chr(ord(character) + by) for character in text)
