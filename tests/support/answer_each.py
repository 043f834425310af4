"""In a child process: answer with each of the models that are named, as far as they can.

    python answer_each.py MODEL...

It prints the name of each before it is loaded; the last one is the one that crashed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import AlignProError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget

SETTINGS = TargetSettings(context=256, sequences=2, n_gpu_layers=0, gpu=None, threads=1)
TEXTS = ("Hello", "Café ½ 東京 😀 \ufeff", "\x00\x01\x7f\t\n\r\n  x", "<|im_start|>a</s><0x41>")


def answer(path: Path) -> None:
    """Tokenise every text, and answer some of them."""
    with LlamaTarget(path, read_header(path), SETTINGS) as target:
        asks = [[Message("user", text)] for text in TEXTS]
        for ask in asks:
            target.prompt_tokens(ask)
        for ask in asks[:2]:
            for stream in target.answer(Question(ask, max_tokens=3, sampling=Sampling(seed=1))):
                "".join(stream)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, flush=True)
        try:
            answer(Path(name))
        except AlignProError as error:
            print(error, flush=True)
