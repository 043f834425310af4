"""GSM8K's rule: the last number of the answer is the number behind #### in the reference.

As in published evaluations that let an answer be free text ("flexible" extraction), the last number
counts, and what separates thousands, a currency sign and a last full stop do not. So of a fraction
its denominator counts: 1/2 ends in 2. Numbers are compared by value: 18.00 is 18.
"""

from __future__ import annotations

import re
from decimal import Decimal

from alignpro_lite.errors import InputError

MARK = "####"
"""What stands before the final answer of a reference."""
_CURRENCY = "$€£¥₹"
_NUMBER = re.compile(
    rf"""
    (?P<sign> (?<![\w)\]]) [-\N{{MINUS SIGN}}][{_CURRENCY}]? )?   # between two numbers it is a dash
    (?P<digits>
        (?: \d{{1,3}} (?: ,\d{{3}} )+ (?!\d) | \d+ ) (?: \.\d+ )?
        | (?<!\d) \.\d+
    )
    """,
    re.VERBOSE,
)


class NumberCheck:
    """The last number of the answer is the one that the reference ends in."""

    def require(self, reference: str) -> None:
        """Refuse a reference that does not end in a number; see `AnswerCheck.require`."""
        _reference_number(reference)

    def score(self, prompt: str, answer: str, reference: str) -> float:
        """1 or 0; see `AnswerCheck.score`. An answer without a number is wrong."""
        return float(last_number(answer) == _reference_number(reference))


def last_number(text: str) -> Decimal | None:
    """The last number of a text; None where there is none."""
    found = numbers_in(text)
    return found[-1] if found else None


def numbers_in(text: str) -> list[Decimal]:
    """All numbers of a text, in order."""
    return [_value(found) for found in _NUMBER.finditer(text)]


def final_number(reference: str) -> Decimal | None:
    """The number that stands alone, or alone behind the last ####; None where none does."""
    found = _NUMBER.fullmatch(_ending(reference))
    return _value(found) if found else None


def _reference_number(reference: str) -> Decimal:
    found = final_number(reference)
    if found is None:
        raise InputError(
            f"a reference for gsm8k must be a number or end in one, as in '{MARK} 18', found "
            f"{_ending(reference)!r:.40}.",
            "Correct the reference, or use the check exact.",
        )
    return found


def _ending(reference: str) -> str:
    return reference.rpartition(MARK)[2].strip().removesuffix(".").lstrip(_CURRENCY)


def _value(found: re.Match[str]) -> Decimal:
    number = Decimal(found["digits"].replace(",", ""))
    return -number if found["sign"] else number
