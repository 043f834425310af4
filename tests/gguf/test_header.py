"""Reading GGUF headers: what is found, what is refused, and that no other error gets out."""

from __future__ import annotations

import os
import struct
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import TENSOR_TYPES, ArraySummary, GgufFile, Tensor
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header, read_texts
from tests.support import gguf_writer
from tests.support.gguf_writer import TensorSpec

METADATA: dict[str, gguf_writer.Value] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 1],
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "é"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ messages }}",
}
TENSORS = [
    TensorSpec("token_embd.weight", (32, 4), "Q8_0"),
    TensorSpec("blk.0.attn_q.weight", (32, 32), "Q4_0"),
    TensorSpec("output_norm.weight", (32,)),
]
HEADER = gguf_writer.header(METADATA, TENSORS)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return gguf_writer.write(tmp_path / "tiny.gguf", METADATA, TENSORS)


def read_bytes(folder: Path, data: bytes) -> GgufFile:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return read_header(path)


# What it finds


def test_metadata_is_read_by_type(tiny: Path) -> None:
    model = read_header(tiny)
    assert (model.version, model.architecture) == (3, "llama")
    assert model.metadata["general.name"] == "Tiny"
    assert model.metadata["tokenizer.ggml.eos_token_id"] == 1
    assert model.metadata["tokenizer.ggml.add_bos_token"] is True
    assert model.metadata["llama.rope.freq_base"] == 10000.0
    assert model.chat_template == "{{ messages }}"


def test_a_vocabulary_is_counted_and_not_read(tiny: Path) -> None:
    model = read_header(tiny)
    tokens = model.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, ArraySummary)
    assert (tokens.count, tokens.of_text) == (4, True)
    assert model.vocab_size == 4
    assert read_texts(model, "tokenizer.ggml.tokens") == [b"<s>", b"</s>", b"a", "é".encode()]


def test_tensors_have_their_place_and_size(tiny: Path) -> None:
    model = read_header(tiny)
    start = len(HEADER)
    assert model.tensors == (
        Tensor("token_embd.weight", (32, 4), "Q8_0", 4 * 34, start),
        Tensor("blk.0.attn_q.weight", (32, 32), "Q4_0", 32 * 18, start + 160),
        Tensor("output_norm.weight", (32,), "F32", 128, start + 160 + 576),
    )


def test_dimensions_of_the_model_and_their_defaults(tiny: Path) -> None:
    model = read_header(tiny)
    assert (model.n_layers, model.context_length, model.embedding_length) == (2, 64, 32)
    assert model.n_head == (4, 4)
    assert model.n_head_kv == (2, 1)
    assert (model.key_length, model.value_length) == (8, 8)
    assert model.n_experts_used == 0
    assert model.feed_forward_length == model.expert_feed_forward_length == 64


def test_stated_dimensions_win_over_defaults(tmp_path: Path) -> None:
    stated = {
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 12,
        "llama.expert_used_count": 2,
        "llama.expert_feed_forward_length": 48,
    }
    model = read_header(gguf_writer.write(tmp_path / "m.gguf", METADATA | stated, TENSORS))
    assert (model.key_length, model.value_length, model.n_experts_used) == (16, 12, 2)
    assert model.expert_feed_forward_length == 48


def test_a_model_without_template_says_none(tmp_path: Path) -> None:
    model = read_header(gguf_writer.write(tmp_path / "m.gguf", {"general.architecture": "llama"}))
    assert model.chat_template is None


def test_version_2_is_read(tmp_path: Path) -> None:
    data = gguf_writer.header(METADATA, [], version=2)
    assert read_bytes(tmp_path, data).version == 2


def test_a_split_model_is_read_as_one(tmp_path: Path) -> None:
    for number, tensor in enumerate(TENSORS):
        split = METADATA | {"split.no": number, "split.count": 3}
        gguf_writer.write(tmp_path / f"m-{number + 1:05d}-of-00003.gguf", split, [tensor])
    model = read_header(tmp_path / "m-00001-of-00003.gguf")
    assert [tensor.name for tensor in model.tensors] == [tensor.name for tensor in TENSORS]
    require_text_generation(model)
    with pytest.raises(ModelFileError, match="Expected the first part"):
        require_text_generation(read_header(tmp_path / "m-00002-of-00003.gguf"))


def test_a_missing_part_of_a_split_model_is_named(tmp_path: Path) -> None:
    split = METADATA | {"split.no": 0, "split.count": 2}
    path = gguf_writer.write(tmp_path / "m-00001-of-00002.gguf", split, TENSORS)
    with pytest.raises(ModelFileError, match=r"m-00002-of-00002\.gguf does not exist"):
        read_header(path)
    with pytest.raises(ModelFileError, match="original names"):
        read_header(path.rename(tmp_path / "renamed.gguf"))


@pytest.mark.no_cover  # tracing takes longer than reading
def test_a_vocabulary_of_50000_tokens_is_read_in_50_ms(tmp_path: Path) -> None:
    words = [f"token{number}" for number in range(50_000)]
    big = METADATA | {"tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": words}
    path = gguf_writer.write(tmp_path / "big.gguf", big, TENSORS)
    seconds = []
    for _ in range(5):
        start = time.thread_time()  # of this thread only: other tests run at the same time
        read_header(path)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.05


def test_block_sizes_agree_with_those_of_llama_cpp() -> None:
    constants = pytest.importorskip("gguf.constants", reason="needs the export extra")
    theirs = {kind.value: (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    assert dict(TENSOR_TYPES) == theirs


# What it refuses


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"\n <html>", "HTML"),
        (struct.pack("<Q", 64) + b'{"__metadata__":{}}', "safetensors"),
        (b'{"error": "not found"}', "JSON"),
        (b"tjgg" + bytes(60), "legacy GGML"),
        (b"\x80\x02}q\x00.", "pickle"),
        (bytes(64), "unfinished download"),
        (b"\xde\xad\xbe\xef", "de ad be ef"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1, expected 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version 4, expected 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims 1152921504606846976 tensors"),
        (b"GGUF", "header ends too early"),
    ],
)
def test_another_format_is_named(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(ModelFileError, match=expected) as caught:
        read_bytes(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert caught.value.cure


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match=r"is a folder.*export target"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_header(Path(os.devnull))


def test_every_cut_of_the_header_is_refused(tmp_path: Path) -> None:
    for length in range(len(HEADER)):
        with pytest.raises(ModelFileError):
            read_bytes(tmp_path, HEADER[:length])


def test_cut_off_weights_are_refused_with_both_sizes(tiny: Path) -> None:
    size = tiny.stat().st_size
    os.truncate(tiny, size - 1)
    with pytest.raises(ModelFileError, match=rf"promises {size} bytes, the file has {size - 1}"):
        read_header(tiny)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (struct.pack("<IIQ", 9, 8, 1 << 62), "ends too early"),
        (struct.pack("<IIQ", 9, 8, 1000), "ends too early"),
        (struct.pack("<IIQ", 9, 4, 1 << 62), "ends too early"),
        (struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
        (struct.pack("<IQ", 8, 1 << 63), "ends too early"),
        (struct.pack("<IIQQ", 9, 8, 2, (1 << 64) - 1) + bytes(64), "ends too early"),
        (struct.pack("<I", 77), "unknown type 77"),
    ],
)
def test_absurd_lengths_cost_nothing(tmp_path: Path, value: bytes, expected: str) -> None:
    data = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + value
    with pytest.raises(ModelFileError, match=expected):
        read_bytes(tmp_path, data)


def sparse(path: Path, count: int, pieces: list[tuple[bytes, int]]) -> Path:
    """A file of `count` keys; each piece is bytes and how many more follow that take no disk."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, count))
        for data, hole in pieces:
            file.write(data)
            file.seek(hole, os.SEEK_CUR)
        file.truncate(file.tell())
    return path


def named(number: int, value: bytes) -> bytes:
    return struct.pack("<Q", 3) + b"%03d" % number + value


SPARSE = {
    "texts": [(named(i, struct.pack("<IQ", 8, 1 << 23)), 1 << 23) for i in range(100)],
    "one text": [(named(0, struct.pack("<IQ", 8, 1 << 32)), 1 << 32)],
    "empty texts": [
        (named(0, struct.pack("<IIQ", 9, 8, 1 << 16)), 1 << 19),
        (named(1, struct.pack("<IIQ", 9, 8, 1 << 21)), 1 << 24),
    ],
    "numbers": [(named(i, struct.pack("<IIQ", 9, 0, 1 << 23)), 1 << 23) for i in range(100)],
    "a long key": [(struct.pack("<Q", 1 << 31), 1 << 31)],
}


@pytest.mark.parametrize("pieces", SPARSE.values(), ids=SPARSE)
def test_claims_that_take_no_disk_take_no_memory_either(
    tmp_path: Path, pieces: list[tuple[bytes, int]]
) -> None:
    """246 kB on disk became 1.9 GB of texts, and then a MemoryError."""
    path = sparse(tmp_path / "sparse.gguf", len(pieces), pieces)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=r"claims more than (64 MB|2097152 texts)"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((1 << 17, 0), "claims 131072 tensors"), ((0, 1 << 17), "claims 131072 metadata keys")],
)
def test_far_too_many_entries_are_not_read(
    tmp_path: Path, counts: tuple[int, int], expected: str
) -> None:
    with pytest.raises(ModelFileError, match=expected):
        read_bytes(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, *counts) + bytes(1 << 20))


def test_a_split_count_costs_nothing(tmp_path: Path) -> None:
    """2**32 - 1 parts became a list of 4 * 10**9 names."""
    name = tmp_path / "m-00001-of-4294967295.gguf"
    number = struct.pack("<Q", 8) + b"split.no" + struct.pack("<IH", 2, 0)
    count = struct.pack("<Q", 11) + b"split.count" + struct.pack("<II", 4, (1 << 32) - 1)
    name.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + number + count)
    with pytest.raises(ModelFileError, match=r"split\.count is not a 16-bit number"):
        read_header(name)
    split = METADATA | {"split.no": 0, "split.count": 65535}
    path = gguf_writer.write(tmp_path / "m-00001-of-65535.gguf", split, TENSORS)
    with pytest.raises(ModelFileError, match=r"m-00002-of-65535\.gguf does not exist"):
        read_header(path)


def test_texts_end_where_they_end_for_llama_cpp(tmp_path: Path) -> None:
    """Behind a NUL, a check saw what llama.cpp does not, and the other way round."""
    kind = {"tokenizer.ggml.model": "none\0gpt2"}
    path = gguf_writer.write(tmp_path / "m.gguf", METADATA | kind, TENSORS)
    assert read_header(path).metadata["tokenizer.ggml.model"] == "none"
    twice = METADATA | {"llama.block_count\0": 7}
    with pytest.raises(ModelFileError, match="duplicate"):
        read_header(gguf_writer.write(tmp_path / "k.gguf", twice, TENSORS))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (struct.pack("<I5QIQ", 5, 1, 1, 1, 1, 1, 0, 0), "5 dimensions"),
        (struct.pack("<IQIQ", 1, 32, 99, 0), "unknown type 99"),
        (struct.pack("<IQIQ", 1, 31, 2, 0), "not multiples of 32"),
        (struct.pack("<IQIQ", 1, 32, 0, 64), "start at byte 0, its header says 64"),
        (struct.pack("<IQQIQ", 2, 1 << 63, 1 << 63, 0, 0), "cut off"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path: Path, tensor: bytes, expected: str) -> None:
    data = b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + tensor
    with pytest.raises(ModelFileError, match=expected):
        read_bytes(tmp_path, data)


def test_names_that_come_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="same name"):
        read_header(gguf_writer.write(tmp_path / "m.gguf", METADATA, TENSORS + TENSORS))
    pair = struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, 0)
    with pytest.raises(ModelFileError, match="is empty or a duplicate"):
        read_bytes(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair + pair)


@pytest.mark.parametrize("alignment", [0, 1, 16, 33])
def test_an_alignment_that_llama_cpp_cannot_use_is_refused(tmp_path: Path, alignment: int) -> None:
    """Below 32, ggml ends the process."""
    with pytest.raises(ModelFileError, match="power of two from 32 up"):
        read_header(gguf_writer.write(tmp_path / "m.gguf", {"general.alignment": alignment}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", "two"),
        ("llama.block_count", 0),
        ("llama.block_count", 1_000_000),
        ("llama.context_length", True),
        ("llama.attention.head_count_kv", [1, 2, 3]),
        ("llama.attention.head_count_kv", [1, -2]),
        ("llama.attention.head_count_kv", "many"),
    ],
)
def test_a_number_of_the_wrong_kind_is_named(
    tmp_path: Path, key: str, value: gguf_writer.Value
) -> None:
    model = read_header(gguf_writer.write(tmp_path / "m.gguf", METADATA | {key: value}, TENSORS))
    with pytest.raises(ModelFileError, match=key):
        _ = (model.n_layers, model.context_length, model.n_head_kv)


def test_a_missing_number_is_named(tmp_path: Path) -> None:
    model = read_header(gguf_writer.write(tmp_path / "m.gguf", {"general.architecture": "llama"}))
    with pytest.raises(ModelFileError, match=r"'llama\.context_length', found missing"):
        _ = model.context_length


def test_a_text_generation_model_is_accepted(tiny: Path) -> None:
    require_text_generation(read_header(tiny))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"general.architecture": "bert"}, "an embedding model"),
        ({"general.architecture": "nomic-bert"}, "an embedding model"),
        ({"general.architecture": "clip"}, "a vision or audio projector"),
        ({"general.architecture": "t5"}, "an encoder-decoder model"),
        ({"general.type": "mmproj"}, "a vision or audio projector"),
        ({"general.type": "adapter"}, "a LoRA adapter"),
        ({"llama.pooling_type": 3}, "an embedding model"),
        ({"llama.attention.causal": False}, "a model without causal attention"),
    ],
)
def test_a_model_of_another_kind_is_named(
    tmp_path: Path, change: dict[str, gguf_writer.Value], expected: str
) -> None:
    path = gguf_writer.write(tmp_path / "m.gguf", METADATA | change, TENSORS)
    with pytest.raises(ModelFileError, match=f"found {expected} in"):
        require_text_generation(read_header(path))


def test_a_vocabulary_and_an_image_model_are_named(tmp_path: Path) -> None:
    vocabulary = gguf_writer.write(tmp_path / "vocab.gguf", METADATA)
    with pytest.raises(ModelFileError, match="a vocabulary without weights"):
        require_text_generation(read_header(vocabulary))
    image = gguf_writer.write(
        tmp_path / "image.gguf", {"general.architecture": "flux"}, [TensorSpec("img_in", (32,))]
    )
    with pytest.raises(ModelFileError, match="no token embeddings"):
        require_text_generation(read_header(image))
    without = {key: value for key, value in METADATA.items() if "tokenizer" not in key}
    with pytest.raises(ModelFileError, match="no tokenizer"):
        require_text_generation(
            read_header(gguf_writer.write(tmp_path / "bare.gguf", without, TENSORS))
        )


# No other error gets out


def use_everything(model: GgufFile) -> None:
    require_text_generation(model)
    for name, attribute in vars(GgufFile).items():
        if isinstance(attribute, property):
            getattr(model, name)


def survives(data: bytes) -> None:
    """Any bytes are either a model or a ModelFileError, at once."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            use_everything(read_bytes(Path(folder), data))
            message = ""
        except ModelFileError as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 1000
        assert time.perf_counter() - start < 1


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.sampled_from([b"", b"GGUF\x03\0\0\0", HEADER[:200]]))
def test_arbitrary_bytes_raise_only_model_file_errors(data: bytes, beginning: bytes) -> None:
    survives(beginning + data)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(HEADER) - 1), st.binary(min_size=1, max_size=9)),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_headers_raise_only_model_file_errors(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(HEADER + bytes(1024))
    for offset, patch in edits:
        data[offset : offset + len(patch)] = patch
    survives(bytes(data))
