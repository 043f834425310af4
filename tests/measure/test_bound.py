"""Theorem 6.1: exact on a toy that can be enumerated, its estimates, and the tiny models."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from alignpro_lite.errors import BundleError, InputError, RewardError
from alignpro_lite.eval.bound_run import BoundModels, BoundPlan, measure_bound
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.measure.bound import (
    Optimum,
    OracleTerms,
    PromptTerms,
    bound,
    optimum,
    table,
    total_variation,
)
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.reward.reward import CallableScorer, Reward
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.bound_toy import Toy, random_toy

# The theorem itself.


def test_the_theorem_is_never_violated():
    toys = [random_toy(seed) for seed in range(400)]
    for toy in toys:
        assert (toy.gap <= toy.right + 1e-9).all()
    # Not for want of trying: some of them come close.
    assert min((toy.right - toy.gap).min() / toy.r_max for toy in toys) < 0.1


def test_it_holds_for_any_policy_in_place_of_the_optimum():
    for seed in range(100):
        toy = random_toy(seed)
        other = np.random.default_rng(seed).dirichlet([0.3] * toy.best.shape[1], len(toy.best))
        toy = replace(toy, best=other)
        assert (toy.gap <= toy.right + 1e-9).all()


def test_a_number_added_to_the_rewards_of_a_prompt_changes_nothing():
    toy = random_toy(3)
    moved = replace(toy, rewards=toy.rewards - toy.rewards.min(axis=1, keepdims=True))
    assert moved.gap == pytest.approx(toy.gap)
    assert moved.kl == pytest.approx(toy.kl)
    assert moved.optimum == pytest.approx(toy.optimum)


def test_in_the_slack_only_log_z_is_left_of_the_optimum():
    toy = random_toy(4)
    apart = toy.r_max * (toy.oracle_variation + toy.rewrite_variation)
    left = toy.strength * toy.log_z - (toy.best * toy.rewards).sum(axis=1)
    assert toy.right - toy.gap == pytest.approx(apart + left)


# Total variation from samples.


def test_equal_distributions_are_0_apart_and_disjoint_ones_1():
    log_p = np.log(np.full(10, 0.1))
    assert total_variation(log_p, log_p) == 0
    assert total_variation(log_p, np.full(10, -math.inf)) == 1
    assert total_variation(log_p, log_p - 300) == pytest.approx(1)
    assert total_variation(log_p, np.stack([log_p, log_p - 300])) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_of_a_total_variation_is_unbiased(seed):
    """Two samples at a time, half of which Q cannot write."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet([0.5] * 8, 2)
    q = np.where(np.arange(8) < 4, q, 0) / q[:4].sum()
    log_p, log_q = np.log(p), np.log(q, where=q > 0, out=np.full(8, -math.inf))
    draws = random.choice(8, (20_000, 2), p=p)
    found = [total_variation(log_p[pair], log_q[pair]) for pair in draws]
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(np.abs(p - q).sum() / 2, abs=4 * error + 1e-12)


@pytest.mark.parametrize(
    ("log_p", "log_q"),
    [([], []), ([-math.inf], [0.0]), ([math.nan], [0.0]), ([0.0], [math.nan])],
)
def test_what_is_no_log_probability_is_refused(log_p, log_q):
    with pytest.raises(InputError, match="total variation"):
        total_variation(np.array(log_p), np.array(log_q))


# ρ* from rewrites and a few answers.


def test_the_optimum_from_many_rewrites_is_the_exact_one():
    toy = replace(random_toy(6), strength=0.8)
    random = np.random.default_rng(0)
    chosen = random.choice(toy.reference.shape[1], 40_000, p=toy.reference[0])
    found = optimum(np.repeat(toy.worth[0, chosen][:, None], 2, axis=1), toy.strength)
    assert found.reward == pytest.approx(toy.reached[0], abs=0.02)
    assert found.kl == pytest.approx(toy.kl[0], abs=0.02)


def test_lucky_answers_do_not_count_as_reward():
    """Holds down: rewrites that are all alike, weighed and judged by the same noisy answers."""
    random = np.random.default_rng(1)
    found = [optimum(random.normal(0, 2, (16, 4)), 1.0) for _ in range(2000)]
    assert np.mean([one.reward for one in found]) == pytest.approx(0, abs=0.1)
    assert np.mean([one.kl for one in found]) < 0.25


def test_a_kl_stays_where_it_can_be_seen_whatever_the_noise():
    """Holds down: answers that vary by 20 λ made it -10 nats, and the bound larger by as much."""
    random = np.random.default_rng(3)
    for _ in range(200):
        found = optimum(random.normal(0, 1, (8, 4)), 0.02)
        assert 0 <= found.kl <= math.log(8)
        assert found.noise > 10
    best = np.repeat(np.arange(8.0)[:, None], 4, axis=1)
    assert optimum(best, 1e-3).kl == pytest.approx(math.log(8))


def test_one_answer_cannot_choose_and_judge():
    with pytest.raises(InputError, match="2 or more answers"):
        optimum(np.zeros((4, 1)), 1.0)


# All terms together.


def sampled_terms(toy: Toy, place: int, random: np.random.Generator) -> PromptTerms:
    """What `bound_run` would measure on a prompt of a toy: 64 rewrites, 8 answers each."""
    target, rewards = toy.target[place], toy.rewards[place]
    rewrites = random.choice(len(toy.reference[place]), 64, p=toy.reference[place])
    plain = random.choice(rewards.size, 64, p=target[0])
    answers = np.array([random.choice(rewards.size, 8, p=target[one]) for one in rewrites])
    judged = random.choice(rewards.size, 64, p=toy.best[place])
    best, log_target = np.log(toy.best[place, judged]), np.log(target)
    return PromptTerms(
        rewrite_variation=total_variation(log_target[0, plain], log_target[rewrites][:, plain]),
        optimum=optimum(rewards[answers], toy.strength),
        oracle=OracleTerms(
            total_variation(best, log_target[0, judged]), float(rewards[judged].mean())
        ),
        lowest=float(rewards.min()),
        highest=float(rewards.max()),
    )


def test_the_estimated_bound_is_the_exact_one():
    toy = replace(random_toy(11, prompts=150), strength=2.0)
    random = np.random.default_rng(2)
    found = bound([sampled_terms(toy, place, random) for place in range(150)], 2.0, None, seed=0)
    assert found.r_max == pytest.approx(toy.r_max)
    exact = {
        "rewrite_variation": toy.rewrite_variation,
        "oracle_variation": toy.oracle_variation,
        "kl": toy.kl,
        "bound": toy.right,
        "gap": toy.gap,
        "slack": toy.right - toy.gap,
    }
    for name, values in exact.items():
        estimate = getattr(found, name)
        assert estimate.low <= values.mean() <= estimate.high, name
    assert found.is_violated is False
    assert "not violated" in table(found)


def terms(slack: float) -> PromptTerms:
    """A prompt with J(ρ*) = 0, KL = 1, and distances of 0.25 each."""
    return PromptTerms(0.25, Optimum(0.0, 1.0, 0.1), OracleTerms(0.25, 1.5 - slack), -1.0, 3.0)


def test_every_number_by_hand():
    """r_max = 4, so the right side is 4 (0.25 + 0.25) - 0.5 = 1.5."""
    found = bound([terms(0.5), terms(1.0)], 0.5, None, seed=0)
    assert (found.r_max, found.bound) == (4, Estimate(1.5, 1.5, 1.5))
    assert found.gap == Estimate(0.75, 0.5, 1.0)
    assert found.slack == Estimate(0.75, 0.5, 1.0)
    assert bound([terms(0.5), terms(1.0)], 0.5, 8.0, seed=0).bound == Estimate(3.5, 3.5, 3.5)


def test_a_violation_is_one_beyond_the_noise():
    assert bound([terms(-0.5), terms(-1.0)], 0.5, None, seed=0).is_violated
    assert not bound([terms(-0.5), terms(0.1)], 0.5, None, seed=0).is_violated
    assert "is violated" in table(bound([terms(-0.5), terms(-1.0)], 0.5, None, seed=0))


def test_without_an_oracle_the_bound_is_unknown_and_says_so():
    found = bound([replace(terms(0), oracle=None)] * 2, 0.5, None, seed=0)
    assert found.bound is found.gap is found.slack is found.oracle_variation is None
    assert found.is_violated is None
    assert "not measurable without an oracle" in table(found)
    assert found.rewrite_variation.value == 0.25


def test_a_bound_above_every_gap_says_so():
    vacuous = bound([replace(terms(0), rewrite_variation=1.0)] * 2, 0.5, None, seed=0)
    assert "says nothing" in table(vacuous)
    assert "says nothing" not in table(bound([terms(0)] * 2, 0.5, None, seed=0))


def test_noise_that_hides_the_optimum_is_told():
    noisy = replace(terms(0), optimum=Optimum(0.0, 1.0, 12.0))
    assert "noise of R̂ is 12 λ" in table(bound([noisy] * 2, 0.5, None, seed=0))
    assert "noise of R̂" not in table(bound([terms(0)] * 2, 0.5, None, seed=0))


def test_a_range_that_rewards_leave_is_refused():
    with pytest.raises(InputError, match="r_max is 2, found rewards over a range of 4"):
        bound([terms(0)] * 2, 0.5, 2.0, seed=0)


def test_a_bound_is_plain_data():
    found = bound([terms(0.5), terms(1.0)], 0.5, None, seed=0)
    assert json.loads(json.dumps(asdict(found)))["slack"]["value"] == 0.75


# The tiny models.

PROMPTS = ["What is 12 + 345?", "Name a colour.", "Why?"]
PLAN = BoundPlan(strength=0.5, rewrites=10, answers=2, max_tokens=12, seed=1)


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
        yield BoundModels(target, reference, Reward([scorer], {"vowels": 1.0}))


def test_the_bound_of_the_tiny_models(tiny):
    """The oracle is the target itself, so that their distance is 0 up to roundings."""
    done: list[PromptTerms] = []
    models = replace(tiny, oracle=tiny.target)
    found = measure_bound(models, PROMPTS, PLAN, [], done.append)
    assert len(done) == 3
    assert found.oracle_variation.high < 0.02
    assert 0 < found.rewrite_variation.value <= 1
    assert 0 < found.r_max <= 1
    assert found.is_violated is False
    rest: list[PromptTerms] = []
    assert measure_bound(models, PROMPTS, PLAN, done[:2], rest.append) == found
    assert rest == done[2:]


def test_the_tiny_models_without_an_oracle(tiny):
    found = measure_bound(tiny, PROMPTS[:2], PLAN, [], ignore)
    assert found.bound is None
    assert found.prompts == 2


class Unchanging:
    """A reference that sends every prompt as it is."""

    sequences = 8

    def __init__(self, bundle):
        self.bundle = bundle

    def start(self, prompt, count, sampling, first):
        result = SimpleNamespace(text=prompt)
        return [SimpleNamespace(result=lambda: result)] * count


def test_rewrites_that_change_nothing_do_not_move_the_target_and_another_template_does(tiny):
    file = tiny.target.file
    template = "Answer in verse: {{ messages[0].content }}"
    other = replace(file, metadata={**file.metadata, "tokenizer.chat_template": template})
    with LlamaTarget(TINY_TARGET, other, tiny.target.settings) as oracle:
        models = replace(tiny, reference=Unchanging(tiny.reference.bundle), oracle=oracle)
        found = measure_bound(models, PROMPTS, PLAN, [], ignore)
    assert found.rewrite_variation.high < 0.02
    assert found.oracle_variation.low > 0.1


def test_one_prompt_has_no_interval(tiny):
    with pytest.raises(InputError, match="at least 2 prompts"):
        measure_bound(tiny, PROMPTS[:1], PLAN, [], ignore)


def undecided(prompts, answers):
    return [math.nan for _ in answers]


def test_an_answer_without_a_score_is_an_error(tiny):
    reward = Reward([CallableScorer(f"{__name__}:undecided", "none")], {"none": 1.0})
    with pytest.raises(RewardError, match="have no score"):
        measure_bound(replace(tiny, reward=reward), PROMPTS, PLAN, [], ignore)


def test_an_oracle_with_other_tokens_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(LlamaTarget, "is_like", lambda *_: False)
    with pytest.raises(InputError, match="other tokens"):
        measure_bound(replace(tiny, oracle=tiny.target), PROMPTS, PLAN, [], ignore)


def test_a_merged_adapter_has_no_reference(tiny, monkeypatch):
    sidecar = tiny.reference.bundle.sidecar
    merged = replace(
        sidecar,
        graph=replace(sidecar.graph, gate=None),
        provenance=replace(sidecar.provenance, adapter="adapter"),
    )
    bundle = replace(tiny.reference.bundle, sidecar=merged)
    monkeypatch.setattr(tiny.reference, "bundle", bundle)
    with pytest.raises(BundleError, match="merged"):
        measure_bound(tiny, PROMPTS, PLAN, [], ignore)


@pytest.mark.parametrize("wrong", [{"strength": 0.0}, {"rewrites": 0}, {"answers": 1}])
def test_a_plan_that_measures_nothing_is_refused(wrong):
    with pytest.raises(InputError, match="The bound needs"):
        replace(PLAN, **wrong)
