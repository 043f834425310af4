"""Choices and their certificates as plain data, which JSON can hold."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.certificate import Certificate


def certificate_json(certificate: Certificate) -> dict[str, Any]:
    """A certificate as plain data, without the time that scoring took.

    What remains is the same for the same seed.
    """
    written = asdict(certificate)
    del written["scoring_seconds"]
    plain: dict[str, Any] = _finite(written)
    return plain


def rewrite_json(rewrite: Rewrite) -> dict[str, Any]:
    """A sampled rewrite as plain data."""
    return {
        "text": rewrite.text,
        "output": rewrite.output,
        "reasoning": rewrite.reasoning,
        "tokens": len(rewrite.tokens),
        "log_prob": round(rewrite.log_prob, 6),
        "log_proposal": round(rewrite.log_proposal, 6),
        "finish_reason": rewrite.finish_reason,
    }


def _finite(value: Any) -> Any:
    """The same data, numbers rounded; infinite ones and NaN become None."""
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float():
            return round(value, 6) if math.isfinite(value) else None
    return value
