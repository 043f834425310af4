"""What every kind of span is tested by: a change is noticed, and what is unchanged is kept."""

from __future__ import annotations

from alignpro_lite.rewriting.spans import protect


def require_noticed(prompt: str, rewrite: str) -> None:
    """The rewrite changes a protected span of the prompt; around the prompt, anything may stand."""
    protected = protect(prompt)
    assert protected.broken_by(rewrite)
    for kept in (
        protected.prompt,
        f"Please help me with this:\n{protected.prompt}",
        f"{protected.prompt}\n\nAnswer in 3 sentences.",
    ):
        assert protected.broken_by(kept) == ()
