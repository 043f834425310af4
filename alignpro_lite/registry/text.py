"""Text from outside: UTF-8 with or without a byte-order mark, through whichever door it comes."""

from __future__ import annotations

import codecs

from alignpro_lite.errors import InputError

_OTHER_MARKS = {
    # UTF-32 first: its mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decode_text(raw: bytes) -> str:
    """The text of some bytes, without a byte-order mark.

    Raises:
        ValueError: They are not UTF-8 text; says what was found instead.
    """
    for mark, encoding in _OTHER_MARKS.items():
        if raw.startswith(mark):
            raise ValueError(f"expected UTF-8 text, found {encoding}")
    if 0 in raw:  # UTF-16 without a mark may be valid UTF-8
        raise ValueError(f"expected UTF-8 text, found a zero byte at {raw.index(0)}")
    bare = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return bare.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(raw) - len(bare)
        raise ValueError(f"expected UTF-8 text, found byte 0x{raw[at]:02x} at {at}") from error


def decode_input(raw: bytes, what: str) -> str:
    """The text that a user gives.

    Args:
        raw: As it came.
        what: Where it came from, as the beginning of a sentence.

    Raises:
        InputError: It is not UTF-8.
    """
    try:
        return decode_text(raw)
    except ValueError as error:
        raise InputError(
            f"{what} cannot be read: {error}.",
            "Convert it to UTF-8 first, for example with `iconv -f ENCODING -t UTF-8`.",
        ) from error
