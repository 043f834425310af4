"""The target export: every architecture's GGUF agrees with torch and keeps tokens and template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alignpro_lite.decoding.llamacpp import open_vocabulary
from alignpro_lite.errors import ExportError
from alignpro_lite.export.parity import MIN_POSITIONS
from alignpro_lite.export.target import export_target, quantisations, required_agreement
from tests.support.tiny_models import (
    CHAT_TEMPLATE,
    EOS,
    configurations,
    unfused_configuration,
    write_model,
)

pytestmark = pytest.mark.usefixtures("forked_converters")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gemma") / "model", configurations()["gemma3"])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama") / "model", configurations()["llama"])


@pytest.mark.parametrize("name", configurations())
def test_float_file_of_every_architecture_equals_torch(name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", configurations()[name])
    result = export_target(folder, tmp_path / "target.gguf", "f32")
    assert result.required == required_agreement("F32")
    assert result.positions >= MIN_POSITIONS
    assert result.argmax_agreement >= 0.999
    assert result.max_logit_error < 1e-2
    assert result.greedy_agreement == 1
    vocabulary = open_vocabulary(tmp_path / "target.gguf")
    assert vocabulary.eos == EOS
    assert vocabulary.chat_template == CHAT_TEMPLATE
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["target.gguf"]


@pytest.mark.parametrize(
    ("kind", "cure"), [("Q8_0", "Use --quantisation F16, or add"), ("F32", "Add --allow-mismatch")]
)
def test_a_mismatch_advises_a_finer_type_than_the_one_that_failed(
    kind: str, cure: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a Q8_0 file that disagreed with torch was to be made as Q8_0 instead."""
    monkeypatch.setattr("alignpro_lite.export.target.required_agreement", lambda _: 2.0)
    with pytest.raises(ExportError) as caught:
        export_target(llama, tmp_path / "target.gguf", kind)
    assert caught.value.cure.startswith(cure)


def test_quantised_file_is_held_to_its_threshold(gemma: Path, tmp_path: Path) -> None:
    result = export_target(gemma, tmp_path / "target.gguf", "Q8_0")
    assert result.required == required_agreement("Q8_0")
    assert result.argmax_agreement >= result.required
    assert not result.mismatch_allowed


def test_a_mismatch_is_refused_and_leaves_no_file(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "target.gguf"
    out.write_bytes(b"GGUF kept")
    with pytest.raises(ExportError, match=r"disagrees with torch by .*% too much"):
        export_target(llama, out, "Q4_0")
    assert out.read_bytes() == b"GGUF kept"
    assert list(tmp_path.iterdir()) == [out]
    allowed = export_target(llama, out, "Q4_0", allow_mismatch=True)
    assert allowed.mismatch_allowed
    assert out.read_bytes()[:4] == b"GGUF"


def test_a_stop_token_that_is_not_carried_over_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [EOS, 77]}))
    with pytest.raises(ExportError, match="stop ids"):
        export_target(folder, tmp_path / "target.gguf", "F32")


def test_an_unknown_type_is_refused_with_the_known_ones(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Q4_K_M"):
        export_target(llama, tmp_path / "target.gguf", "Q4_K_XXL")
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_K_M", "IQ4_XS"} <= quantisations().keys()


def test_an_architecture_that_llama_cpp_lacks_is_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", unfused_configuration())
    with pytest.raises(ExportError, match="GPTNeoForCausalLM is not supported"):
        export_target(folder, tmp_path / "target.gguf", "F32")


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found nothing"):
        export_target(tmp_path / "absent", tmp_path / "target.gguf", "F32")
