"""The folder of a run: nobody's data is in it, and one process trains into it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.run_folder import claim, sole_run
from alignpro_lite.registry.record import Record


class Settings(Record):
    steps: int
    pace: float = 1.0


@pytest.mark.parametrize(
    "name", ["results.jsonl", "report.md", "model.safetensors", "prompts.jsonl", "summary.json"]
)
def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path, name):
    """`--output` equal to the data folder wrote into it, over files of the same names."""
    (tmp_path / name).write_text("the user's own")
    with pytest.raises(InputError, match=f"found {name}") as caught:
        claim(tmp_path, Settings(1))
    assert "elete" not in caught.value.cure
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "names", [[], [".DS_Store"], ["evaluation.lock"], [".lock", "config.json.partial"]]
)
def test_a_new_folder_and_what_an_early_end_left_are_taken(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    claim(tmp_path, Settings(1))
    (tmp_path / "report.md").touch()
    claim(tmp_path, Settings(1))


def test_a_run_started_before_a_key_existed_goes_on_with_the_keys_default(tmp_path):
    """Each new key of a configuration made every run that was under way impossible to resume."""
    (tmp_path / "config.json").write_text('{"steps": 1}')
    claim(tmp_path, Settings(1))
    with pytest.raises(InputError, match=r"started with pace = 1.0, found 2.0"):
        claim(tmp_path, Settings(1, pace=2.0))


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": "many"}', '{"steps": 1, "gone": 2}'])
def test_a_record_that_cannot_be_read_is_kept_and_named(tmp_path, text):
    record = tmp_path / "config.json"
    record.write_text(text)
    with pytest.raises(InputError) as caught:
        claim(tmp_path, Settings(1))
    assert "choose another --output" in caught.value.cure
    assert "config.json" in caught.value.problem
    assert record.read_text() == text


def test_a_second_run_into_one_folder_is_told_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from alignpro_lite.experiment.run_folder import sole_run\n"
        "with sole_run(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with sole_run(tmp_path):
        with (
            pytest.raises(InputError, match="Another process is training"),
            sole_run(tmp_path),
        ):
            pass
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Another process is training" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []
