"""Counters of a server, in the text form of Prometheus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Literal

from alignpro_lite.serve.admission import Admission

_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper ends, in seconds."""
TokenKind = Literal["prompt", "completion"]


class ServerMetrics:
    """What a server has done since it started."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._within: Counter[tuple[str, float]] = Counter()
        self._tokens: Counter[TokenKind] = Counter()
        self._rewritten: Counter[bool] = Counter()

    def finished(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests[route, status] += 1
        self._seconds[route] += seconds
        for bound in _BUCKETS:
            if seconds <= bound:
                self._within[route, bound] += 1

    def read(self, kind: TokenKind, count: int) -> None:
        """Count tokens."""
        self._tokens[kind] += count

    def chosen(self, *, changed: bool) -> None:
        """Count a prompt that was rewritten, or not."""
        self._rewritten[changed] += 1

    def text(self) -> str:
        """All of them."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests, by route and status.")
        for (route, status), count in sorted(self._requests.items()):
            yield f'alignpro_requests_total{{route="{route}",status="{status}"}} {count}'
        yield from _head("request_seconds", "histogram", "How long requests took.")
        for route, seconds in sorted(self._seconds.items()):
            yield from self._histogram(route, seconds)
        yield from _head("tokens_total", "counter", "Tokens of the target, read and written.")
        for kind in ("prompt", "completion"):
            yield f'alignpro_tokens_total{{kind="{kind}"}} {self._tokens[kind]}'
        yield from _head("prompts_total", "counter", "Prompts that were rewritten, or were not.")
        for changed in (True, False):
            word = "true" if changed else "false"
            yield f'alignpro_prompts_total{{rewritten="{word}"}} {self._rewritten[changed]}'
        yield from _head("requests_waiting", "gauge", "Requests that wait for a place.")
        yield f"alignpro_requests_waiting {self._admission.waiting}"
        yield from _head("requests_running", "gauge", "Requests that are being answered.")
        yield f"alignpro_requests_running {self._admission.running}"

    def _histogram(self, route: str, seconds: float) -> Iterator[str]:
        name, label = "alignpro_request_seconds", f'route="{route}"'
        count = sum(n for (other, _), n in self._requests.items() if other == route)
        for bound in _BUCKETS:
            yield f'{name}_bucket{{{label},le="{bound:g}"}} {self._within[route, bound]}'
        yield f'{name}_bucket{{{label},le="+Inf"}} {count}'
        yield f"{name}_sum{{{label}}} {seconds:.6f}"
        yield f"{name}_count{{{label}}} {count}"


def _head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP alignpro_{name} {help_text}", f"# TYPE alignpro_{name} {kind}"
