"""Hooks for PyInstaller, which finds them by the entry point `pyinstaller40`."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def hook_folders() -> list[str]:
    """Where the hooks are, and the list of those that run when an app starts."""
    return [str(_FOLDER)]
