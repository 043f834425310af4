"""How long a start takes: of the import, of `alignpro-lite --help`, and of a server.

    python benchmarks/startup.py [RUNS] [--serve PRESET]

The import must take less than 50 ms more than the bare interpreter, --help less than 200 ms, and a
server with the models `small` less than 3 s until clients can connect.
"""

from __future__ import annotations

import argparse
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


def seconds_to_ready(preset: str) -> float:
    """Wall-clock time until a server with the models of a preset says where it listens."""
    serve = ["-m", "alignpro_lite", "serve", "--models", preset, "--port", "0"]
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *serve, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdin is not None, "a pipe"
        assert server.stdout is not None, "a pipe"
        said = server.stdout.readline()
        needed = time.perf_counter() - start
        server.stdin.close()
    if not said:
        raise SystemExit(f"The server does not start: try `alignpro-lite serve --models {preset}`.")
    return needed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, nargs="?", default=RUNS)
    parser.add_argument("--serve", metavar="PRESET")
    settings = parser.parse_args()
    median_of = medians(settings.runs)
    print(f"bare interpreter      {median_of[BARE] * 1000:6.1f} ms")
    added = median_of[IMPORT] - median_of[BARE]
    print(f"import alignpro_lite  {added * 1000:6.1f} ms more (bar: 50)")
    print(f"alignpro-lite --help  {median_of[HELP] * 1000:6.1f} ms in all (bar: 200)")
    if settings.serve:
        starts = [seconds_to_ready(settings.serve) for _ in range(min(settings.runs, 5))]
        print(f"alignpro-lite serve   {statistics.median(starts):6.2f} s until ready (bar: 3)")


if __name__ == "__main__":
    main()
