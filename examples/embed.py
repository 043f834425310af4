"""Use an aligned model in a program: stream an answer, show the rewrite, cancel after a while.

python examples/embed.py "How do I stay safe online?"
"""

from __future__ import annotations

import sys
import threading

from alignpro_lite import AlignedModel, Request, Sampling

MAX_SECONDS = 20.0


def main(prompt: str) -> None:
    """Answer one prompt, for at most MAX_SECONDS."""
    request = Request(max_tokens=120, sampling=Sampling(temperature=0.7, seed=1))
    with AlignedModel.load() as model:
        stream = model.stream(prompt, request)
        # Any thread may cancel, for example that of a stop button or a timer.
        timer = threading.Timer(MAX_SECONDS, stream.cancel)
        timer.start()
        print("The target gets:", stream.prepare().sent, file=sys.stderr)
        for piece in stream:
            print(piece, end="", flush=True)
        timer.cancel()
        result = stream.result()
    print(f"\n[{result.finish_reason}, {result.answer_tokens} tokens]", file=sys.stderr)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "How do I stay safe online?")
