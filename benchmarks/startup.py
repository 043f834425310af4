"""How long a start takes: `import alignpro_lite` and `alignpro-lite --help`, no model loaded.

Run `python benchmarks/startup.py [RUNS]`. Bars: import under 50 ms over the bare
interpreter, --help under 200 ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
BARE = "pass"
IMPORT = "import alignpro_lite"
HELP = "import sys; sys.argv[1:] = ['--help']; from alignpro_lite.cli import main; main()"


def seconds(code: str) -> float:
    """Wall-clock time of one fresh interpreter that runs the code."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def medians(runs: int) -> dict[str, float]:
    """Median seconds of each start; taken in turns, so that a busy machine slows all alike."""
    starts = (BARE, IMPORT, HELP)
    for code in starts:
        seconds(code)  # fills the file cache
    rounds = [[seconds(code) for code in starts] for _ in range(runs)]
    columns = zip(*rounds, strict=True)
    return {code: statistics.median(c) for code, c in zip(starts, columns, strict=True)}


def main() -> None:
    """Measure and print milliseconds."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    found = medians(runs)
    print(f"bare interpreter      {found[BARE] * 1000:6.1f} ms")
    print(f"import alignpro_lite  {(found[IMPORT] - found[BARE]) * 1000:6.1f} ms more (bar: 50)")
    print(f"alignpro-lite --help  {found[HELP] * 1000:6.1f} ms in all (bar: 200)")


if __name__ == "__main__":
    main()
