"""The bound of Theorem 6.1 measured on the tiny models."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from msgspec import structs

from alignpro_lite.errors import BundleError, InputError, RewardError
from alignpro_lite.eval.bound import BoundRun
from alignpro_lite.eval.config import BoundSection
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.measure.bound import PromptTerms
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.reward.reward import CallableScorer, Reward
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_BUNDLE, TINY_TARGET

PROMPTS = ["What is 12 + 345?", "Name a colour.", "Why?"]
DRAWS = BoundSection(rewrites=10, answers=2)


def ignore(terms):
    pass


def share_of_vowels(prompts, answers):
    return [sum(letter in "aeiou" for letter in answer) / 12 for answer in answers]


@pytest.fixture(scope="module")
def tiny():
    settings = TargetSettings(context=2048, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
    decoder = DecoderSettings(device="cpu", gpu=0, sequences=8, threads=1)
    with (
        LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), settings) as target,
        OnnxPrompter(open_bundle(TINY_BUNDLE), decoder, adapter=0.0) as reference,
    ):
        scorer = CallableScorer(f"{__name__}:share_of_vowels", "vowels")
        reward = Reward([scorer], {"vowels": 1.0})
        yield BoundRun(target, reference, reward, None, DRAWS, 0.5, max_tokens=12, seed=1)


def test_the_bound_of_the_tiny_models(tiny):
    """The oracle is the target itself, so that their distance is 0 up to roundings."""
    done: list[PromptTerms] = []
    models = replace(tiny, oracle=tiny.target)
    found = models.measure(PROMPTS, [], done.append)
    assert len(done) == 3
    assert found.oracle_variation.high < 0.02
    assert 0 < found.rewrite_variation.value <= 1
    assert 0 < found.r_max <= 1
    assert found.is_violated is False
    rest: list[PromptTerms] = []
    assert models.measure(PROMPTS, done[:2], rest.append) == found
    assert rest == done[2:]


def test_the_bound_of_the_tiny_models_without_an_oracle(tiny):
    found = tiny.measure(PROMPTS[:2], [], ignore)
    assert found.bound is None
    assert found.prompts == 2


class Unchanging:
    """A reference that sends every prompt as it is."""

    sequences = 8

    def require_reference(self):
        pass

    def start(self, prompt, count, sampling, first):
        result = SimpleNamespace(text=prompt)
        return [SimpleNamespace(result=lambda: result)] * count


def test_rewrites_that_change_nothing_do_not_move_the_target_and_another_template_does(tiny):
    file = tiny.target.file
    template = "Answer in verse: {{ messages[0].content }}"
    other = replace(file, metadata={**file.metadata, "tokenizer.chat_template": template})
    with LlamaTarget(TINY_TARGET, other, tiny.target.settings) as oracle:
        models = replace(tiny, reference=Unchanging(), oracle=oracle)
        found = models.measure(PROMPTS, [], ignore)
    assert found.rewrite_variation.high < 0.02
    assert found.oracle_variation.low > 0.1


def test_one_prompt_has_no_interval(tiny):
    with pytest.raises(InputError, match="at least 2 prompts"):
        tiny.measure(PROMPTS[:1], [], ignore)


def undecided(prompts, answers):
    return [math.nan for _ in answers]


def test_an_answer_without_a_score_is_an_error(tiny):
    reward = Reward([CallableScorer(f"{__name__}:undecided", "none")], {"none": 1.0})
    with pytest.raises(RewardError, match="have no score"):
        replace(tiny, reward=reward).measure(PROMPTS, [], ignore)


def test_an_oracle_with_other_tokens_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(LlamaTarget, "is_like", lambda *_: False)
    with pytest.raises(InputError, match="other tokens"):
        replace(tiny, oracle=tiny.target)


def test_a_merged_adapter_has_no_reference(tiny, monkeypatch):
    sidecar = tiny.reference.bundle.sidecar
    merged = structs.replace(
        sidecar,
        graph=structs.replace(sidecar.graph, gate=None),
        provenance=structs.replace(sidecar.provenance, adapter="adapter"),
    )
    bundle = replace(tiny.reference.bundle, sidecar=merged)
    monkeypatch.setattr(tiny.reference, "profile", bundle.profile)
    with pytest.raises(BundleError, match="merged"):
        replace(tiny)


@pytest.mark.parametrize(
    "wrong",
    [{"strength": 0.0}, {"draws": BoundSection(rewrites=0)}, {"draws": BoundSection(answers=1)}],
)
def test_a_run_that_measures_nothing_is_refused(tiny, wrong):
    with pytest.raises(InputError, match="The bound needs"):
        replace(tiny, **wrong)
