"""Check format, style and types; `make lint`, the commit hook and CI run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TYPED = ROOT / "build" / "typed"
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy", "-p", "alignpro_lite"),
    ("mypy", "tools", "benchmarks", "examples", "tests"),
)


def main() -> int:
    """Run every check; 1 if any of them fails."""
    lay_out_package()
    environment = os.environ | {"MYPYPATH": str(TYPED)}
    codes = [
        subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=environment).returncode
        for check in CHECKS
    ]
    return int(any(codes))


def lay_out_package() -> None:
    """Copy the package as it is installed: type checkers do not follow the mapping of export/."""
    shutil.rmtree(TYPED, ignore_errors=True)
    package = TYPED / "alignpro_lite"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "alignpro_lite", package, ignore=ignored)
    shutil.copytree(ROOT / "export", package / "export", ignore=ignored)


if __name__ == "__main__":
    sys.exit(main())
