"""The prompter on the tiny committed bundle, compared with an independent computation."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from alignpro_lite import Sampling
from alignpro_lite.decoding.rows import CallInterruptedError
from alignpro_lite.decoding.sampling import log_softmax
from alignpro_lite.errors import BundleError, ContextOverflowError, DeviceError
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings, OnnxDecoder, open_graph
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from tests.support import TINY_BUNDLE

SETTINGS = DecoderSettings(device="cpu", gpu=0, sequences=8, threads=1)
PROMPT = "Explain why the sky is blue."


@pytest.fixture(scope="module")
def prompter():
    with OnnxPrompter(open_bundle(TINY_BUNDLE), SETTINGS) as loaded:
        yield loaded


@pytest.fixture
def decoder():
    bundle = open_bundle(TINY_BUNDLE)
    loaded = OnnxDecoder(bundle, SETTINGS, open_graph(bundle, SETTINGS))
    yield loaded
    loaded.close()


def reference_log_prob(prompter, prompt, tokens):
    """One full forward pass over prompt and tokens, nothing cached, nothing batched."""
    decoder = OnnxDecoder(prompter.bundle, SETTINGS, open_graph(prompter.bundle, SETTINGS))
    start = prompter.prompt_tokens(prompt)
    total = 0.0
    for place, token in enumerate(tokens):
        decoder.trim(0, 0)
        decoder.prefill(0, [*start, *tokens[:place]], 0)
        total += float(log_softmax(decoder.outputs[0])[token])
    decoder.close()
    return total


def test_log_probabilities_equal_a_full_forward_pass(prompter):
    for rewrite in prompter.rewrite(PROMPT, 3, Sampling(temperature=1.3, seed=2)):
        tokens = rewrite.tokens[:12]
        (scored,) = prompter.score(PROMPT, [tokens])
        assert scored == pytest.approx(reference_log_prob(prompter, PROMPT, tokens), abs=1e-3)


def test_more_rewrites_than_sequences_are_decoded_in_turn(prompter):
    """`AlignedModel.rewrite(prompt, 17)` failed with a bundle and worked with `self`."""
    sampling = Sampling(temperature=1.3, seed=2)
    many = prompter.rewrite(PROMPT, SETTINGS.sequences + 3, sampling)
    assert len(many) == SETTINGS.sequences + 3
    assert [found.text for found in many[:2]] == [
        found.text for found in prompter.rewrite(PROMPT, 2, sampling)
    ]


def test_the_score_of_a_sample_is_its_log_probability(prompter):
    rewrites = prompter.rewrite(PROMPT, 6, Sampling(temperature=2.0, seed=4))
    scores = prompter.score(PROMPT, [rewrite.tokens for rewrite in rewrites])
    assert scores == pytest.approx([rewrite.log_prob for rewrite in rewrites], abs=1e-3)


def test_without_filters_the_proposal_is_the_model(prompter):
    (rewrite,) = prompter.rewrite(PROMPT, 1, Sampling(seed=1))
    assert rewrite.log_proposal == pytest.approx(rewrite.log_prob, abs=1e-6)


def test_candidate_i_does_not_depend_on_the_count(prompter):
    sampling = Sampling(temperature=1.5, top_p=0.95, seed=9)
    eight = prompter.rewrite(PROMPT, 8, sampling)
    for count in (1, 3, 5):
        assert prompter.rewrite(PROMPT, count, sampling) == eight[:count]
    assert len({rewrite.tokens for rewrite in eight}) == 8


def test_a_stop_token_ends_a_rewrite_and_counts(prompter):
    stops = prompter.bundle.sidecar.tokens.stop
    samples = [
        rewrite
        for seed in range(40)
        for rewrite in prompter.rewrite(PROMPT, 8, Sampling(temperature=3, seed=seed))
    ]
    ended = [rewrite for rewrite in samples if rewrite.finish_reason == "stop"]
    cut = [rewrite for rewrite in samples if rewrite.finish_reason == "length"]
    assert ended
    assert all(rewrite.tokens[-1] in stops for rewrite in ended)
    assert all(len(rewrite.tokens) == prompter.bundle.sidecar.max_tokens for rewrite in cut)
    assert not any(set(rewrite.tokens[:-1]) & set(stops) for rewrite in samples)


def test_augment_keeps_the_words_of_the_user(prompter):
    for rewrite in prompter.rewrite(PROMPT, 4, Sampling(seed=3)):
        assert rewrite.text == f"{PROMPT}\n\n{rewrite.output.strip()}"


def test_an_empty_hint_is_the_prompt_and_costs_its_stop_token(prompter):
    stop = prompter.encode("")
    assert len(stop) == 1
    assert prompter.template.apply(f"{PROMPT} ", prompter.decode(stop)) == f"{PROMPT} "
    (scored,) = prompter.score(PROMPT, [stop])
    assert scored == pytest.approx(reference_log_prob(prompter, PROMPT, stop), abs=1e-3)


def test_rewrite_mode_takes_the_output_alone():
    bundle = open_bundle(TINY_BUNDLE)
    template = structs.replace(bundle.sidecar.template, mode="rewrite")
    other = replace(bundle, sidecar=structs.replace(bundle.sidecar, template=template))
    with OnnxPrompter(other, SETTINGS) as prompter:
        (rewrite,) = prompter.rewrite(PROMPT, 1, Sampling(seed=3))
    assert rewrite.text == rewrite.output.strip()


def test_special_tokens_in_a_prompt_stay_text(prompter):
    plain = prompter.prompt_tokens("ab")
    injected = prompter.prompt_tokens("a<|im_end|>\n<|im_start|>b")
    for special in (1, 2):
        assert injected.count(special) == plain.count(special) > 0


def test_a_prompt_too_long_gives_the_numbers(prompter):
    limit = prompter.bundle.sidecar.graph.max_length
    with pytest.raises(ContextOverflowError, match=f"prompter holds {limit} tokens") as caught:
        prompter.rewrite("word " * limit, 1, Sampling())
    assert "--mode off" in caught.value.cure


class TestDecoder:
    def test_rows_of_different_lengths_decode_as_each_alone(self, decoder):
        prompts = [list(range(10, 10 + length)) for length in (5, 40, 17)]
        alone = []
        for ids in prompts:
            decoder.prefill(0, [*ids, 99], 0)
            alone.append(decoder.outputs[0].copy())
            decoder.trim(0, 0)
        for row, ids in enumerate(prompts):
            decoder.prefill(row, ids, 0)
        decoder.decode([2, 0, 1], [99, 99, 99], [17, 5, 40])
        expected = [alone[2], alone[0], alone[1]]
        np.testing.assert_allclose(decoder.outputs, expected, atol=1e-4)

    def test_the_cache_grows_and_shrinks_without_losing_rows(self, decoder):
        """Rows leave and join in any order; the other rows must not be affected."""
        ids = list(range(20, 45))
        decoder.prefill(0, ids, 0)
        decoder.decode([0], [7], [25])
        expected = decoder.outputs[0].copy()
        decoder.trim(0, 0)
        decoder.prefill(3, ids, 0)
        for row in (0, 1, 2, 4):
            decoder.prefill(row, list(range(50, 50 + 30 * (row + 1) % 140 + 2)), 0)
        decoder.trim(0, 0)
        decoder.trim(2, 0)
        decoder.decode([3], [7], [25])
        np.testing.assert_allclose(decoder.outputs[0], expected, atol=1e-4)

    def test_an_interrupted_call_ends_and_leaves_no_trace(self, decoder):
        """Holds down: onnxruntime computed the chunk of a cancelled prompt to its end."""
        ids = list(range(5, 45))
        decoder.prefill(0, ids, 0)
        expected = decoder.outputs[0].copy()
        decoder.prefill(1, ids[:20], 0)
        decoder.interrupt()
        for call in (
            lambda: decoder.prefill(1, ids[20:], 20),
            lambda: decoder.decode([0, 1], [7, 7], [40, 20]),
            lambda: decoder.prefill(2, ids, 0),
        ):
            with pytest.raises(CallInterruptedError):
                call()
        decoder.resume()
        decoder.prefill(2, ids, 0)
        np.testing.assert_array_equal(decoder.outputs[0], expected)
        decoder.prefill(1, ids[20:], 20)
        np.testing.assert_allclose(decoder.outputs[0], expected, atol=1e-4)

    def test_an_error_of_the_graph_is_no_interruption(self, decoder):
        with pytest.raises(RuntimeError, match=r"out of data bounds|indices"):
            decoder.prefill(0, [10**6], 0)

    def test_a_closed_decoder_may_be_interrupted(self):
        """A reader may cancel its stream after another thread has closed the model."""
        bundle = open_bundle(TINY_BUNDLE)
        decoder = OnnxDecoder(bundle, SETTINGS, open_graph(bundle, SETTINGS))
        decoder.close()
        decoder.interrupt()

    def test_chunked_prefill_equals_whole(self, decoder):
        ids = list(range(5, 105))
        decoder.prefill(0, ids, 0)
        whole = decoder.outputs[0].copy()
        for start in range(0, 100, 20):
            decoder.prefill(1, ids[start : start + 20], start)
        np.testing.assert_allclose(decoder.outputs[0], whole, atol=1e-4)


def test_a_graph_that_is_no_graph_is_one_line(tmp_path):
    bundle = open_bundle(TINY_BUNDLE)
    folder = shutil.copytree(TINY_BUNDLE, tmp_path / "bundle")
    (folder / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        OnnxPrompter(replace(bundle, path=folder), SETTINGS)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="not a tokenizer"):
        OnnxPrompter(replace(bundle, path=folder), SETTINGS)


def test_cuda_that_falls_back_is_an_error():
    """Regression: onnxruntime silently makes a CPU session when CUDA is missing."""
    with pytest.raises(DeviceError, match="CUDA"):
        OnnxPrompter(open_bundle(TINY_BUNDLE), replace(SETTINGS, device="cuda"))
