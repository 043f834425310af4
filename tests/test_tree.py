"""What is tracked must work on any machine that clones it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support import ROOT


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_tracked_link_is_absolute_or_leaves_the_tree():
    """`runs` once was a link to a folder of the machine it was made on; every clone lacked it."""
    for path in filter(Path.is_symlink, tracked()):
        assert not path.readlink().is_absolute(), path
        assert path.resolve().is_relative_to(ROOT.resolve()), path
        assert path.exists(), path


def test_every_path_can_be_checked_out_on_every_system():
    """Windows and macOS ignore case in names, and Windows refuses some characters."""
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert len({name.casefold() for name in names}) == len(names)
    assert [name for name in names if re.search(r'[<>:"|?*\\]|[. ](/|$)', name)] == []
