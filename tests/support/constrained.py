"""Texts drawn under a constraint, byte by byte, without a model; and a validator for them."""

from __future__ import annotations

import json
import random
from decimal import Decimal, localcontext
from typing import Any

import jsonschema
import numpy as np

from alignpro_lite.decoding.guide import GuideVocabulary

STOP = 256
VOCABULARY = GuideVocabulary(
    [*(bytes([byte]) for byte in range(STOP)), b""], [STOP], lambda text: [*text.encode()]
)
_DRAFT = jsonschema.Draft202012Validator
_ENDINGS = b'"}]'


def walk(grammar: str, seed: int, most: int = 600) -> str | None:
    """A text drawn byte by byte from all that are allowed; None if it was cut.

    Raises:
        InputError: The grammar cannot be kept.
    """
    draws, guide, written = random.Random(seed), VOCABULARY.guide(grammar), bytearray()
    while len(written) < most:
        allowed = np.flatnonzero(guide.allowed()).tolist()
        if STOP in allowed and (len(allowed) == 1 or draws.random() < 0.3):
            return written.decode()
        choices = [byte for byte in allowed if byte != STOP]
        if draws.random() < 0.3 + len(written) / most:
            choices = [byte for byte in choices if byte in _ENDINGS] or choices
        written.append(draws.choice(choices))
        guide.accept(written[-1])
    return None


def require_valid(schema: dict[str, Any], text: str) -> None:
    """Refuse a text that is no JSON, or not valid under a schema, formats included.

    Numbers are exact: a validator that computes in floats errs about multiples.

    Raises:
        ValueError: It is no JSON.
        jsonschema.ValidationError: It is not valid.
    """
    with localcontext(prec=2000):
        exact = json.loads(json.dumps(schema), parse_float=Decimal)
        validator = _DRAFT(exact, format_checker=_DRAFT.FORMAT_CHECKER)
        validator.validate(json.loads(text, parse_float=Decimal))
