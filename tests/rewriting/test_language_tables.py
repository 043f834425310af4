"""The language classifier without its tables in memory: the same answers, less memory."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

from alignpro_lite.rewriting.language_tables import identifier_on_disk
from tests.support import ROOT

TEXTS = [
    "How do I stay safe online?",
    "Wie bleibe ich im Netz sicher?",
    "Comment apprendre à nager sans piscine ?",
    "如何学习游泳",
    "اكتب رسالة قصيرة إلى صديقي عن السفر",
    "日本の川は？",
    "😀",
    "",
    "word " * 5000,
]


@pytest.fixture(scope="module")
def identifier():
    return identifier_on_disk(MODEL_DIR / MODEL_FILE)


def test_it_says_what_py3langid_says(identifier):
    whole = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    assert [identifier.rank(text) for text in TEXTS] == [whole.rank(text) for text in TEXTS]


def test_threads_may_share_it(identifier):
    expected = [identifier.rank(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: [identifier.rank(text) for text in TEXTS], range(8)):
            assert found == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_takes_little_memory():
    """It took 74 MB beside the models, a fifth of all that is not a model file."""
    script = (
        "import numpy, py3langid.langid\n"
        "from alignpro_lite.rewriting.language import language_model\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "language_model().rank('How do I stay safe online? Tell me about passwords.')\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 40_000
