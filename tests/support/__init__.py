"""What several test files share: tiny models, misbehaving servers, problems with known answers."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
TINY_TARGET = DATA / "tiny.gguf"
TINY_BUNDLE = DATA / "tiny-bundle"
