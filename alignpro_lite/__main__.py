"""`python -m alignpro_lite` is the same as `alignpro-lite`; `accelerate launch -m` needs it."""

import os
import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is still imported ends it like any other."""
    try:
        from alignpro_lite.cli import main

        main()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.stderr.flush()
        os._exit(130)


if __name__ == "__main__":
    start()
