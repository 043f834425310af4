"""The tiny target as its own prompter, compared with how the target itself scores."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from alignpro_lite import Sampling
from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.errors import BundleError, ContextOverflowError, DeviceError, ModelFileError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.card import card_of
from alignpro_lite.prompter.lora_file import BASE_KEY, CARD_KEY, open_lora
from alignpro_lite.prompter.own_weights import SelfPrompter, own_weights
from alignpro_lite.prompter.targets import KnownTarget
from alignpro_lite.prompter.template import REWRITE
from alignpro_lite.registry.record import plain
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET, gguf_edit, lora, reasoning_models

SETTINGS = TargetSettings(context=2048, sequences=16, n_gpu_layers=0, gpu=None, threads=1)
PROMPT = "Explain why the sky is blue."
FILE = read_header(TINY_TARGET)
TINY = KnownTarget("tiny", "ab" * 32)


def asked_of(target, **changes):
    """The target as its own prompter, of whose profile something is changed."""
    own = own_weights(None, None)
    return SelfPrompter(target, replace(own, profile=replace(own.profile, **changes)), 0)


@pytest.fixture(scope="module")
def target():
    with LlamaTarget(TINY_TARGET, FILE, SETTINGS) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def prompter(target):
    return asked_of(target, max_tokens=12)


def test_the_log_probability_of_a_rewrite_is_the_targets_own(target, prompter):
    messages = prompter.template.messages(PROMPT)
    for rewrite in prompter.rewrite(PROMPT, 4, Sampling(temperature=1.3, top_p=0.9, seed=2)):
        expected = target.score(messages, [rewrite.tokens])
        assert rewrite.log_prob == pytest.approx(expected[0], abs=0.05)
        assert prompter.score(PROMPT, [rewrite.tokens]) == pytest.approx(expected, abs=0.05)
        assert prompter.reference_score(PROMPT, [rewrite.tokens]) == pytest.approx(
            expected, abs=0.05
        )
    assert prompter.score(PROMPT, []) == []


def test_an_empty_hint_is_the_prompt_and_costs_its_stop_token(target, prompter):
    stop = prompter.encode("")
    assert len(stop) == 1
    assert prompter.split(stop).text == ""
    assert prompter.template.apply(PROMPT, "") == PROMPT
    expected = target.score(prompter.template.messages(PROMPT), [stop])
    assert prompter.score(PROMPT, [stop]) == pytest.approx(expected, abs=0.02)


def test_what_is_encoded_is_decoded_and_ends(prompter):
    tokens = prompter.encode("Größe: 東京 <|im_end|>")
    assert prompter.decode(tokens) == "Größe: 東京 <|im_end|>"
    assert prompter.target.engine._stepper.is_stop(tokens[-1])


def test_draws_follow_the_enumerated_distribution(target):
    """Of one token there are as many rewrites as tokens, so that ρ_sft is known in full."""
    one_token = asked_of(target, max_tokens=1)
    outputs = [[token] for token in range(FILE.vocab_size)]
    exact = np.exp(one_token.score(PROMPT, outputs))
    assert exact.sum() == pytest.approx(1, abs=1e-2)
    drawn = [
        rewrite.tokens[0]
        for seed in range(120)
        for rewrite in one_token.rewrite(PROMPT, 16, Sampling(seed=seed))
    ]
    counted = np.bincount(drawn, minlength=len(exact))
    often = exact * len(drawn) >= 5
    observed = np.array([*counted[often], counted[~often].sum()])
    expected = np.array([*exact[often], exact[~often].sum()]) / exact.sum() * len(drawn)
    surplus = ((observed - expected) ** 2 / expected).sum() - often.sum()
    assert surplus / np.sqrt(2 * often.sum()) < 4  # chi-square of so many degrees, near to normal


def test_filters_change_the_proposal_and_not_the_log_probability(prompter):
    sampling = Sampling(temperature=0.7, top_k=5, seed=1)
    for rewrite in prompter.rewrite(PROMPT, 3, sampling):
        assert rewrite.log_proposal > rewrite.log_prob
    (plainly,) = prompter.rewrite(PROMPT, 1, Sampling(seed=1))
    assert plainly.log_proposal == pytest.approx(plainly.log_prob, abs=1e-6)


def test_more_rewrites_than_the_context_holds_are_decoded_in_turns(prompter):
    """16 rewrites of 256 tokens were refused by a context of 2048, one after another fits."""
    long = asked_of(prompter.target, max_tokens=100)
    rewrites = long.rewrite(PROMPT, 16, Sampling(seed=5))
    assert len({rewrite.tokens for rewrite in rewrites}) == 16
    assert max(len(rewrite.tokens) for rewrite in rewrites) <= 100


def test_a_prompt_too_long_says_how_to_go_on(prompter):
    with pytest.raises(ContextOverflowError, match="A rewrite does not fit") as caught:
        prompter.rewrite("word " * 2048, 1, Sampling())
    assert all(way in caught.value.cure for way in ("--ctx", "--mode off"))


def test_template_and_conversation_stay_cached_beside_each_other(monkeypatch):
    """Else every turn of a chat would compute 500 tokens of the template again."""
    settings = replace(SETTINGS, context=4096)
    with LlamaTarget(TINY_TARGET, FILE, settings) as target:
        prompter, stepper = asked_of(target, max_tokens=4), target.engine._stepper
        computed = []
        inner = stepper.prefill

        def prefill(row, tokens, start):
            computed.append(len(tokens))
            inner(row, tokens, start)

        monkeypatch.setattr(stepper, "prefill", prefill)

        def cost(work):
            computed.clear()
            work()
            return sum(computed)

        def ask(text):
            (stream,) = target.answer(
                Question(prompter.template.messages(text)[:1] * 3, 4, Sampling(seed=1))
            )
            list(stream)

        first = cost(lambda: prompter.rewrite(PROMPT, 2, Sampling()))
        answer = cost(lambda: ask(PROMPT))
        assert first > 500
        assert answer > 100
        for prompt in ("What is 12 + 345?", "Is it blue?", "Write a letter."):
            assert cost(lambda prompt=prompt: prompter.rewrite(prompt, 2, Sampling())) < 100
            assert cost(lambda: ask(PROMPT)) <= 2


def test_a_closed_target_says_so(tmp_path):
    target = LlamaTarget(TINY_TARGET, FILE, SETTINGS)
    prompter = asked_of(target)
    target.close()
    prompter.close()
    with pytest.raises(DeviceError, match="closed"):
        prompter.rewrite(PROMPT, 1, Sampling())


class TestThoughts:
    @pytest.mark.parametrize(
        ("template", "tags", "end"),
        [
            (reasoning_models.SWITCH, reasoning_models.THINK_TAGS, "<think>\n\n</think>\n\n"),
            (reasoning_models.ALWAYS, reasoning_models.THINK_TAGS, "<think>\n\n</think>\n\n"),
            (reasoning_models.OPENED, reasoning_models.THINK_TAGS, "<think>\n\n\n</think>\n\n"),
            (
                reasoning_models.CHANNELS,
                reasoning_models.CHANNEL_TAGS,
                "assistant\n<|channel|>final<|message|>",
            ),
        ],
        ids=["switch", "always", "opened", "channels"],
    )
    def test_a_model_that_reasons_is_asked_without_a_thought(self, tmp_path, template, tags, end):
        """Its thought would take all tokens of a hint."""
        path = reasoning_models.write(tmp_path / "m.gguf", template, tags)
        with LlamaTarget(path, read_header(path), SETTINGS) as target:
            prompter = asked_of(target)
            asked = b"".join(map(target.spoken, prompter.prompt_tokens(PROMPT))).decode()
            assert asked.endswith(end)
            hint = prompter.split(prompter.encode("Be brief."))
            assert (hint.text, hint.reasoning, hint.thought_only) == ("Be brief.", "", False)
            empty = prompter.split(prompter.encode(""))
            assert (empty.text, empty.thought_only) == ("", False)


class TestLora:
    def test_it_gives_what_merged_weights_give(self, target, tmp_path):
        parts = lora.factors()
        own = own_weights(None, open_lora(lora.write_lora(tmp_path / "a.gguf", parts), FILE, TINY))
        merged = lora.write_merged(tmp_path / "merged.gguf", parts)
        with (
            SelfPrompter(target, own, 2048) as prompter,
            LlamaTarget(merged, read_header(merged), SETTINGS) as other,
        ):
            rewrites = prompter.rewrite(PROMPT, 3, Sampling(seed=3))
            outputs = [rewrite.tokens for rewrite in rewrites]
            messages = prompter.template.messages(PROMPT)
            drawn = [rewrite.log_prob for rewrite in rewrites]
            assert drawn == pytest.approx(other.score(messages, outputs), abs=0.3)
            assert prompter.score(PROMPT, outputs) == pytest.approx(drawn, abs=0.3)
            base = target.score(messages, outputs)
            assert prompter.reference_score(PROMPT, outputs) == pytest.approx(base, abs=0.3)
            assert min(abs(np.subtract(drawn, base))) > 1
        with SelfPrompter(target, own, 2048, scale=0.0) as switched_off:
            assert switched_off.score(PROMPT, outputs) == pytest.approx(base, abs=0.3)

    def test_answers_stay_those_of_the_frozen_target(self, target, tmp_path):
        def logits():
            given = [GivenTokens([token]) for token in range(8)]
            streams = target.engine.submit([5, 6, 7, 8], given, 1, fresh=True)
            return [draw.log_prob for stream in streams for draw in stream]

        before = logits()
        path = lora.write_lora(tmp_path / "a.gguf", lora.factors())
        with SelfPrompter(target, own_weights(None, open_lora(path, FILE, TINY)), 2048) as adapted:
            adapted.rewrite(PROMPT, 1, Sampling())
            assert logits() == before

    def test_its_card_says_how_it_is_asked(self, tmp_path):
        card = card_of("tiny", None, "rewrite")
        said = {CARD_KEY: json.dumps(plain(card)), BASE_KEY: TINY.sha256 or ""}
        path = lora.write_lora(tmp_path / "a.gguf", lora.factors(), said)
        own = own_weights(None, open_lora(path, FILE, TINY))
        assert (own.profile.template, own.profile.is_trained) == (REWRITE, True)
        with pytest.raises(BundleError, match="trained to rewrite, found the mode augment"):
            own_weights("augment", open_lora(path, FILE, TINY))

    @pytest.mark.parametrize(
        ("said", "wrong"),
        [
            ({"general.type": "model"}, "is no GGUF LoRA"),
            ({"adapter.type": "control"}, "is no GGUF LoRA"),
            ({"general.architecture": "qwen2"}, "architecture 'qwen2', and the model has llama"),
            ({BASE_KEY: "cd" * 32}, "was made for the file with sha256"),
            ({CARD_KEY: "{"}, "must be JSON"),
            ({CARD_KEY: "{}"}, "prompter_card|base"),
        ],
    )
    def test_one_that_does_not_fit_is_refused(self, tmp_path, said, wrong):
        path = lora.write_lora(tmp_path / "a.gguf", lora.factors(), said)
        with pytest.raises(BundleError, match=wrong):
            open_lora(path, FILE, TINY)

    @pytest.mark.parametrize("change", ["inner", "outer", "rank", "name", "half"])
    def test_factors_of_other_shapes_are_refused(self, tmp_path, change):
        parts = lora.factors()
        down, up = parts[lora.WEIGHTS[0]]
        parts[lora.WEIGHTS[0]] = {
            "inner": (down[:, :-1], up),
            "outer": (down, up[:-1]),
            "rank": (down[:-1], up),
        }.get(change, (down, up))
        if change == "name":
            parts["blk.9.attn_q.weight"] = parts.pop(lora.WEIGHTS[0])
        path = lora.write_lora(tmp_path / "a.gguf", parts)
        if change == "half":
            file = gguf_edit.read(path)
            del file.tensors[0]
            file.write(path)
        with pytest.raises(BundleError, match=r"does not fit tiny\.gguf"):
            open_lora(path, FILE, TINY)

    def test_what_llama_cpp_refuses_is_an_error(self, target, tmp_path):
        path = lora.write_lora(tmp_path / "a.gguf", {}, None)
        own = own_weights(None, open_lora(path, FILE, TINY))
        path.write_bytes(b"GGUF")
        with pytest.raises(ModelFileError, match="cannot use the adapter"):
            SelfPrompter(target, own, 512)
