"""Prompts of a target: the ids that llama.cpp gives for the whole text, under every template."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.conversation import Message, render
from alignpro_lite.decoding.llamacpp import LlamaModel, open_vocabulary
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.target.torch_target import HfTarget
from tests.support import TINY_TARGET, gguf_edit
from tests.support.chat_templates import FRAGMENTS, MARKERS, TEMPLATES

NAMES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
CONTROL, USER_DEFINED = 3, 4
FIRST = 300
TEXT = ["\n\n", "  ", "<table>"]
PHI_3 = ["<s>", "</s>", "<unk>"]
"""The tokens that llama.cpp looks for in such a model."""
VOCABULARIES = ("byte-level", "user defined", "sentencepiece", "phi-3")
fragments = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=6).map("".join)
harmless = st.lists(st.sampled_from(FRAGMENTS[len(MARKERS) :]), min_size=1, max_size=6).map("".join)


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(tmp_path_factory, request) -> LlamaModel:
    """The tiny model with markers of a type, and with the rules of a kind of tokenizer."""
    model = gguf_edit.read(TINY_TARGET)
    if request.param in ("sentencepiece", "phi-3"):
        words = [*"abthinkuser<>", "th", "in", "ink", "think", "user", "hello"]
        gguf_edit.make_sentencepiece(model, [*map(str.encode, words), "\u2581hello".encode()])
    else:
        kept = set(model.items(b"tokenizer.ggml.tokens")[:FIRST])
        merges = model.items(b"tokenizer.ggml.merges")
        merges[:] = [
            pair for pair in merges if kept.issuperset([*pair.split(), pair.replace(b" ", b"")])
        ]
    if request.param == "phi-3":  # llama.cpp goes by the name: white space behind a marker is lost
        model.metadata[b"general.name"] = (gguf_edit.TEXT, b"Phi-3 tiny")
    kind = USER_DEFINED if request.param == "user defined" else CONTROL
    tokens, types = (model.items(b"tokenizer.ggml." + key) for key in (b"tokens", b"token_type"))
    for place, token in enumerate([*MARKERS[2:], *TEXT, *PHI_3], FIRST):
        tokens[place] = token.encode()
        types[place] = USER_DEFINED if token in TEXT else kind
    return open_vocabulary(model.write(tmp_path_factory.mktemp("vocabulary") / "m.gguf"))


def of_llama_cpp(model: LlamaModel, text: str) -> list[int]:
    """The ids of a text with all that is special in it, by one call."""
    raw = text.encode()
    buffer = (model.lib.llama_token * (len(raw) + 8))()
    count = model.lib.llama_tokenize(model._vocab, raw, len(raw), buffer, len(buffer), False, True)
    return list(buffer[:count])


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@settings(deadline=None, max_examples=12)
@given(contents=st.lists(harmless, min_size=1, max_size=4))
def test_a_conversation_without_markers_gets_the_ids_of_its_whole_text(
    vocabulary, template, contents
):
    """Pieces tokenised alone lost the rules of tokens beside them: Phi-3 reads no newline there."""
    messages = [
        Message("assistant" if place % 2 else "user", content)
        for place, content in enumerate(contents)
    ]
    rendered = render(template, messages, NAMES)
    assume(not rendered.find(MARKERS).foreign)  # it needs no whole one: "<think" and ">" may meet
    found = vocabulary.tokenize_rendered(rendered, template)
    assert found == of_llama_cpp(vocabulary, rendered.text)


@pytest.mark.parametrize("kind", ["plain", "role between brackets", "trim", "generation"])
@settings(deadline=None, max_examples=20)
@given(content=fragments)
def test_a_marker_that_a_user_types_is_text_and_arrives_whole(vocabulary, kind, content):
    template = TEMPLATES[kind]
    rendered, plain = (
        render(template, [Message("user", text)], NAMES) for text in (content, "hello")
    )
    ids, ours = (vocabulary.tokenize_rendered(each, template) for each in (rendered, plain))
    special = [token for token, _ in enumerate(MARKERS[2:], FIRST)] + [1, 2]
    assert [token for token in ids if token in special] == [
        token for token in ours if token in special
    ]
    written = b"".join(vocabulary.piece(token) for token in ids if token not in special)
    text = written.decode().replace("\u2581", " ")
    borders = [0, *chain.from_iterable(rendered.find(MARKERS).own), len(rendered.text)]
    between = zip(borders[::2], borders[1::2], strict=True)
    assert "".join(text.split()) == "".join(
        "".join(rendered.text[start:end].split()) for start, end in between
    )


def test_long_runs_are_cut_beside_the_markers_of_a_template(vocabulary):
    """A cut inside `<|im_end|>`, which stands in a run without punctuation, would spell it out."""
    template = "<think>{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    for length in range(2030, 2050):
        messages = [Message("user", "a" * length), Message("assistant", "b" * 5000)]
        rendered = render(template, messages, NAMES)
        ids = vocabulary.tokenize_rendered(rendered, template)
        assert ids.count(2) == 2
        assert ids.count(FIRST + MARKERS.index("<think>") - 2) == 1


def test_phi_3_is_tokenised_alike_in_torch(tmp_path):
    """llama.cpp goes by the model's name: behind its markers white space is lost. Torch kept it."""
    model = gguf_edit.read(TINY_TARGET)
    for place, token in enumerate(PHI_3, FIRST + 60):
        model.items(b"tokenizer.ggml.tokens")[place] = token.encode()
    merges = model.items(b"tokenizer.ggml.merges")
    tokens = set(model.items(b"tokenizer.ggml.tokens"))
    merges[:] = [
        pair for pair in merges if tokens.issuperset([*pair.split(), pair.replace(b" ", b"")])
    ]
    model.metadata[b"general.name"] = (gguf_edit.TEXT, b"Phi-3 tiny")
    model.metadata[b"tokenizer.chat_template"] = (gguf_edit.TEXT, TEMPLATES["plain"].encode())
    path = model.write(tmp_path / "m.gguf")
    messages = [Message("user", " \n hello\n"), Message("assistant", "\tI \n")]
    rendered = render(TEMPLATES["plain"], messages, {})
    ids = open_vocabulary(path).tokenize_rendered(rendered, "")
    assert ids == HfTarget(load_torch_model(path)).prompt_tokens(messages)
    assert ids == of_llama_cpp(open_vocabulary(path), rendered.text)
