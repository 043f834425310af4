"""Addresses: URLs with and without a scheme, e-mail, file paths of every system, handles and tags.

Letters of every script belong to an address. One that runs on into a Chinese or Thai sentence is
taken with it, which protects too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from alignpro_lite.rewriting.scripts import LETTER, UNSPACED

_STOPS = r"\s\"<>`“”„«»‹›\u3000-\u3003\u3008-\u301f！（），：；？"
_BODY = f"[^{_STOPS}]"
_SCHEMES = "mailto|tel|sms|data|urn|magnet|doi|arxiv|isbn|file|geo|xmpp|sip|bitcoin"
_DOTTED = (
    "[a-z]{1,12}(?:rc|ignore|attributes|modules|keep|env|_profile|_history|_aliases)|env(?:\\.\\w+)?|git"
    "|github|ssh|vim|config|cache|local|venv|vscode|idea|aws|docker|kube|htaccess|profile|NET"
    "|txt|md|rst|tex|pdf|docx?|xlsx?|pptx?|odt|rtf|csv|tsv|json|ya?ml|toml|ini|cfg|conf|xml|html?"
    "|css|jsx?|tsx?|pyc?|ipynb|rb|php|java|jar|kt|cpp|hpp|rs|swift|sh|bat|ps1|exe|dll|deb|rpm"
    "|apk|iso|zip|tar|gz|bz2|xz|7z|rar|png|jpe?g|gif|svg|webp|bmp|tiff?|mp[34]|wav|flac|ogg|avi"
    "|mkv|mov|sql|db|sqlite|log|bak|tmp|parquet|onnx|gguf|com|org|net|edu|gov"
)
_PATTERNS = (
    ("://", rf"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://{_BODY}++"),
    (":", rf"(?<!\w)(?i:{_SCHEMES}):{_BODY}++"),
    ("www.", rf"(?<![A-Za-z0-9@.-])www\.{_BODY}++"),
    # example.org/path
    (".", rf"(?<![\w@.-])(?:[\w-]++\.)++[\w-]++(?::\d{{1,5}}+)?+[/?#]{_BODY}*+"),
    # Hidden files and suffixes; a closed list, since a full stop may lack the space behind it.
    (".", rf"(?<![\w./\\~)-])\.(?:{_DOTTED})(?![\w-])"),
    # E-mail, handles, tags.
    ("@", r"(?<![\w.+%'-])[\w.+%'-]++@[\w-]++(?:\.[\w-]++)*+"),
    ("@", r"(?<![\w&/@])@[\w-]++(?:\.[\w-]++)*+"),
    ("#", r"(?<![\w&/#])#[\w-]++"),
    # C:\Program Files\x, \\server\share, /unix/path, ~/x, ../x
    (":", rf"(?<!{LETTER})[A-Za-z]:[\\/]{_BODY}*+(?:[ ][^\\{_STOPS}]*+\\{_BODY}*+)*+"),
    ("\\", rf"(?<!\\)\\\\[\w.$-]++\\{_BODY}*+"),
    (
        "/",
        rf"(?<!{LETTER})(?<![\\/.~}}\])])(?:~[\w-]*+|\.{{1,2}}+)?+/[^/{_STOPS}](?:\\ |{_BODY})*+",
    ),
    # Names of files in scripts without spaces; those in others are words with a sign of code.
    (
        ".",
        rf"(?<![\w./\\~-])(?=[\w.~/\\-]*[{UNSPACED}])(?:[\w~-]++[./\\])++[A-Za-z0-9]{{1,5}}+(?![\w-])",
    ),
)
_ADDRESSES = tuple((hint, re.compile(pattern)) for hint, pattern in _PATTERNS)
"""What each kind contains at least, and what it looks like."""
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_PUNCTUATION = ".,;:!?'*|>…،؛؟。、"


def addresses(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each address, without the punctuation that follows it."""
    for hint, pattern in _ADDRESSES:
        if hint in text:
            for hit in pattern.finditer(text):
                yield hit.start(), hit.start() + len(without_punctuation(hit[0]))


def without_punctuation(address: str) -> str:
    """An address without the marks of the sentence around it: `x_(y)).` becomes `x_(y)`."""
    core = address.rstrip(_PUNCTUATION + ")]}")
    opened = {mark: core.count(opens) - core.count(mark) for mark, opens in _CLOSERS.items()}
    end = len(core)
    for place, mark in enumerate(address[len(core) :], start=end + 1):
        if opened.get(mark, 0) > 0:
            opened[mark] -= 1
            end = place
    return address[:end]
