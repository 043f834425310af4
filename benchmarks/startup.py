"""How long a start takes: `import alignpro_lite` and `alignpro-lite --help`, without a model.

    python benchmarks/startup.py [RUNS]

The import must take less than 50 ms more than the bare interpreter, --help less than 200 ms.
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
    """Wall-clock time of a fresh interpreter that runs the code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def medians(runs: int) -> dict[str, float]:
    """Median seconds of each start, in turns, so that other work slows all of them alike."""
    starts = (BARE, IMPORT, HELP)
    for code in starts:
        seconds(code)  # fills the file cache
    rounds = [[seconds(code) for code in starts] for _ in range(runs)]
    columns = zip(*rounds, strict=True)
    return {code: statistics.median(column) for code, column in zip(starts, columns, strict=True)}


def main() -> None:
    """Measure and print milliseconds."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    median_of = medians(runs)
    print(f"bare interpreter      {median_of[BARE] * 1000:6.1f} ms")
    added = median_of[IMPORT] - median_of[BARE]
    print(f"import alignpro_lite  {added * 1000:6.1f} ms more (bar: 50)")
    print(f"alignpro-lite --help  {median_of[HELP] * 1000:6.1f} ms in all (bar: 200)")


if __name__ == "__main__":
    main()
