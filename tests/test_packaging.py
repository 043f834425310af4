"""The wheel holds what the package needs, and is small."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_is_small(wheel):
    adapters = code = 0
    for info in zipfile.ZipFile(wheel).infolist():
        if info.filename.startswith("alignpro_lite/adapters/"):
            adapters += info.file_size
        else:
            code += info.compress_size
    assert code < 1_200_000
    assert adapters < 20_000_000


def test_the_wheel_holds_code_data_and_the_export(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("alignpro_lite", "export"):
        for path in filter(Path.is_file, (ROOT / folder).rglob("*")):
            is_model = {"known_good", "graphs"} & {*path.parts}
            if path.suffix in (".dat", ".py", ".toml", ".typed", ".txt") or is_model:
                inside = path.relative_to(ROOT).as_posix()
                assert (inside if folder != "export" else f"alignpro_lite/{inside}") in names
    assert not [name for name in names if name.startswith(("export/", "tests/", "docs/"))]


def test_the_wheel_runs_from_a_folder_of_its_own(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import alignpro_lite, alignpro_lite.export.parity, alignpro_lite.registry as r; "
        "assert 'site' in alignpro_lite.__file__ and r.load().preset('default')"
    )
    site = tmp_path.rename(tmp_path.with_name("site"))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {code}"],
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
