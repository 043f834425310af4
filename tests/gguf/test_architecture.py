"""Numbers and tensor types that llama.cpp would crash on, and mutated files that it survives."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from alignpro_lite.decoding.child import run_child
from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import TENSOR_TYPES
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from tests.support import TINY_TARGET, gguf_edit
from tests.support.gguf_edit import F32, I32, TEXT, U32, EditableGguf

NAN, INFINITY = float("nan"), float("inf")
TYPE_IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
ANSWER_EACH = Path(__file__).parents[1] / "support" / "answer_each.py"


def check(tmp_path: Path, model: EditableGguf) -> Path:
    path = model.write(tmp_path / "changed.gguf")
    require_text_generation(read_header(path))
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attention.layer_norm_rms_epsilon": (F32, NAN)}, "layer_norm_rms_epsilon, found nan"),
        ({"attention.layer_norm_rms_epsilon": (F32, -INFINITY)}, "found -inf"),
        ({"attention.layer_norm_rms_epsilon": (F32, -1e-6)}, "a usable number"),
        ({"rope.freq_base": (F32, INFINITY)}, "under llama.rope.freq_base, found inf"),
        ({"block_count": (U32, 0)}, "block_count"),
        ({"block_count": (U32, 513)}, "outside 1 to 512"),
        ({"nextn_predict_layers": (U32, 2)}, "0 to 1 layers for prediction, found 2"),
        ({"context_length": (U32, 0)}, "context_length"),
        ({"embedding_length": (U32, 0)}, "numbers a token"),
        ({"expert_count": (U32, 4)}, "1 to 4 experts in use, found 0"),
        ({"expert_used_count": (U32, 2)}, "0 experts in use, found 2"),
        ({"expert_count": (U32, 2000), "expert_used_count": (U32, 2)}, "0 to 1024 experts"),
        (
            {
                "expert_count": (U32, 6),
                "expert_used_count": (U32, 2),
                "expert_group_count": (U32, 4),
                "expert_group_used_count": (U32, 1),
            },
            "0 experts without a group, found 2",
        ),
        ({"expert_group_count": (U32, 2)}, "0 groups of experts, found 2"),
        ({"rope.scaling.type": (TEXT, b"su")}, "rope scaling none, linear, yarn, longrope"),
        ({"rope.dimension_count": (U32, 0)}, "16 rotated numbers of a head, found 0"),
        ({"rope.dimension_count": (U32, 8)}, "16 rotated numbers of a head, found 8"),
        ({"attention.head_count": (U32, 0)}, "query heads, found 0"),
        ({"attention.head_count_kv": (U32, 3)}, "query heads without a key-value head, found 1"),
        (
            {"attention.head_count_kv": (gguf_edit.ARRAY, (I32, [2, -1]))},
            "attention.head_count_kv",
        ),
        ({"attention.value_length": (U32, 8)}, "16 numbers of a value head, found 8"),
        ({"rope.dimension_count_swa": (U32, 100)}, "of a head in a window, found 100"),
        ({"rope.dimension_count_swa": (U32, 15)}, "without a partner, found 1"),
    ],
)
def test_a_number_that_no_model_has_is_refused(
    tmp_path: Path, changes: dict[str, tuple[int, object]], expected: str
) -> None:
    """Each of them passed the check of the header and ended the process by an assertion of ggml,
    or kept it busy for ever.
    """
    model = gguf_edit.read(TINY_TARGET)
    for key, value in changes.items():
        model.metadata[f"llama.{key}".encode()] = value
    with pytest.raises(ModelFileError, match=expected) as caught:
        check(tmp_path, model)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("output_norm.weight", "F16"),
        ("blk.0.attn_norm.weight", "Q8_0"),
        ("blk.1.ffn_norm.weight", "I32"),
        ("blk.0.ffn_gate.weight", "I32"),
        ("blk.1.ffn_up.weight", "I64"),
        ("blk.0.attn_k.weight", "F64"),
        ("token_embd.weight", "I8"),
        ("token_embd.weight", "Q8_1"),
    ],
)
def test_a_tensor_that_cannot_be_computed_with_is_refused(
    tmp_path: Path, name: str, kind: str
) -> None:
    model = gguf_edit.read(TINY_TARGET)
    (tensor,) = (tensor for tensor in model.tensors if tensor.name == name.encode())
    tensor.type = TYPE_IDS[kind]
    with pytest.raises(ModelFileError, match=f"tensor '{name}', found {kind}"):
        check(tmp_path, model)


def test_a_block_without_queries_is_refused(tmp_path: Path) -> None:
    model = gguf_edit.read(TINY_TARGET)
    model.tensors = [tensor for tensor in model.tensors if tensor.name != b"blk.1.attn_q.weight"]
    with pytest.raises(ModelFileError, match="blocks with attention but no queries"):
        check(tmp_path, model)


def test_experts_differ_between_layers(tmp_path: Path) -> None:
    """A number for each layer was refused, as if it were none."""
    model = gguf_edit.read(TINY_TARGET)
    model.metadata[b"llama.expert_count"] = (U32, 4)
    model.metadata[b"llama.expert_used_count"] = (gguf_edit.ARRAY, (I32, [1, 2]))
    assert read_header(check(tmp_path, model)).n_experts_used == 2


NUMBERS = (0, 1, 2, 3, 7, 15, 16, 17, 64, 100, 384, 512, 2**31, 2**32 - 1)
WORDS = (b"", b"a", b"llama", b"gpt2", b"rwkv", b"none", b"test", b"yarn", b"su", b"\xff", b"a\0b")
FLOATS = (0.0, -1.0, 1e-6, 1e30, NAN, INFINITY, -INFINITY)
KEYS = (
    *("expert_count", "expert_used_count", "expert_group_count", "nextn_predict_layers"),
    *("rope.dimension_count", "rope.dimension_count_swa", "attention.key_length_swa"),
    *("attention.sliding_window", "attention.clamp_kqv", "rope.scaling.factor", "logit_scale"),
    *("rope.scaling.type", "rope.scaling.original_context_length", "attention.scale"),
)


def mutate(model: EditableGguf, draw: random.Random) -> None:
    """Make one change to the structure of a file."""
    keys = [key for key in model.metadata if not key.startswith(b"general.")]
    tensor = draw.choice(model.tensors)

    def new_number() -> tuple[int, object]:
        return draw.choice([(U32, draw.choice(NUMBERS)), (F32, draw.choice(FLOATS))])

    def change_a_value() -> None:
        key = draw.choice(keys)
        kind, value = model.metadata[key]
        if kind == TEXT:
            model.metadata[key] = (TEXT, draw.choice(WORDS))
        elif kind == gguf_edit.ARRAY:
            items = value[1]
            items[draw.randrange(len(items))] = (
                draw.choice([*WORDS, items[0]]) if value[0] == TEXT else draw.randrange(-1, 8)
            )
        else:
            choices = FLOATS if kind == F32 else NUMBERS
            model.metadata[key] = (kind, draw.choice(choices))

    def cut_an_array() -> None:
        arrays = [key for key in keys if model.metadata[key][0] == gguf_edit.ARRAY]
        items = model.items(draw.choice(arrays))
        del items[draw.randrange(len(items)) :]

    changes: list[Callable[[], object]] = [
        lambda: model.metadata.pop(draw.choice(keys)),
        change_a_value,
        change_a_value,
        cut_an_array,
        lambda: model.metadata.update({f"llama.{draw.choice(KEYS)}".encode(): new_number()}),
        lambda: model.tensors.remove(tensor),
        lambda: tensor.shape.reverse(),
        lambda: tensor.shape.append(draw.choice([0, 1, 2])),
        lambda: setattr(tensor, "type", draw.choice([0, 1, 8, 24, 26, 27, 28, 30])),
        lambda: setattr(tensor, "name", draw.choice(model.tensors).name),
    ]
    draw.choice(changes)()


def test_mutated_files_are_refused_or_do_no_harm(tmp_path: Path) -> None:
    """Of such files a tenth passed the check of the header and then crashed llama.cpp."""
    passed = []
    for seed in range(250):
        model, draw = gguf_edit.read(TINY_TARGET), random.Random(seed)
        mutate(model, draw)
        path = model.write(tmp_path / f"{seed}.gguf")
        try:
            require_text_generation(read_header(path))
        except ModelFileError:
            path.unlink()
        else:
            passed.append(str(path))
    assert 40 < len(passed) < 210
    ended = run_child(ANSWER_EACH, passed, 120, {"GGML_NO_BACKTRACE": "1"})
    assert ended.code == 0, (ended.output.splitlines()[-1:], ended.errors[-500:])
