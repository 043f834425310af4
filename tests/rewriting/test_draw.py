"""One rewrite for one prompt: what is tried, refused and chosen, and what it costs."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from typing import Any

import pytest

from alignpro_lite import AlignedModel, Budget, DeviceRequest, Request, RhoStar, Sampling
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.errors import InputError, RegistryError, RewardError
from alignpro_lite.prompter.profile import DOUBT
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.language import language_model
from alignpro_lite.rewriting.pool import MOST_SAMPLES
from alignpro_lite.rewriting.spans import protect
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_models import (
    PROMPT,
    FakePrompter,
    FakeScorer,
    FakeTarget,
    drawn,
    rewarded,
)

GOOD, BAD = "Explain online safety in steps.", "Say something about being online."


def worth(sent):
    return {GOOD: 1.0, BAD: -1.0, PROMPT: 0.0}[sent]


def test_one_sample_without_a_reward_is_used_as_it_is():
    target = FakeTarget()
    choice = drawn(FakePrompter([GOOD]), target=target)
    assert (choice.sent, choice.reason) == (GOOD, "rewritten")
    assert not target.asked


def test_several_without_a_reward_are_ranked_by_the_implicit_reward():
    target, prompter = FakeTarget(), FakePrompter([BAD, GOOD, BAD], ratios=[0.1, 2.0, 0.1])
    choice = drawn(prompter, target=target, samples=3)
    assert choice.sent == GOOD
    assert choice.reason == "highest implicit reward of 3"
    assert not target.asked
    assert prompter.started == [(0, 3)]


def test_with_a_reward_the_proposal_is_the_prompter_itself():
    prompter = FakePrompter([GOOD])
    drawn(prompter)
    assert prompter.sampling.temperature == 0.4
    drawn(prompter, rewarded(worth))
    assert prompter.sampling == Sampling()


def test_ranking_by_an_untrained_prompter_is_refused():
    with pytest.raises(InputError, match="that was trained by one"):
        drawn(FakePrompter([GOOD], adapter=None), samples=2)


def test_a_draw_from_rho_star_takes_what_is_better_and_the_guard_lets_it_pass():
    settings = {"samples": 2, "strength": 0.1, "guard": "strict"}
    choice = drawn(FakePrompter([BAD, GOOD]), rewarded(worth), **settings)
    assert choice.sent == GOOD
    found = choice.certificate
    assert found.gain.is_certain
    assert (found.drawn, found.scored, found.answers, found.strength) == (2, 2, 2, 0.1)
    assert found.before.mean == pytest.approx(0.0, abs=0.02)
    assert found.after.mean == pytest.approx(1.0, abs=0.02)
    assert found.target_tokens == 3 * (8 + 2 * 2 + 8)


def test_the_answer_that_is_returned_is_the_best_to_the_prompt_in_use():
    choice = drawn(FakePrompter([GOOD]), rewarded(worth))
    assert choice.answer.text.startswith(f"{GOOD}#")
    assert choice.answer.reward == pytest.approx(1.02)
    assert drawn(FakePrompter([GOOD]), rewarded(worth), returns="fresh").answer is None


def test_the_guard_keeps_the_prompt_when_a_rewrite_is_worse():
    choice = drawn(FakePrompter([BAD]), rewarded(worth))
    assert choice.sent == PROMPT
    assert choice.rewrite.text == BAD
    assert choice.reason == "no rewrite is expected to be better than the prompt"
    assert choice.answer.text.startswith(f"{PROMPT}#")


def test_without_the_guard_a_worse_rewrite_goes_out():
    choice = drawn(FakePrompter([BAD]), rewarded(worth), guard="off")
    assert (choice.sent, choice.reason) == (BAD, "drawn from ρ*")


def test_the_answers_that_chose_a_rewrite_do_not_judge_it():
    """Trials score 1.0, fresh answers -1.0: the guard must use only the fresh ones."""
    reward = Reward(
        [FakeScorer(lambda sent, n: 0.0 if sent == PROMPT else (1.0 if n < 2 else -1.0))],
        {"r": 1.0},
    )
    choice = drawn(FakePrompter([GOOD]), reward, guard="strict")
    assert choice.sent == PROMPT
    assert choice.certificate.gain.estimate == pytest.approx(-1.0)
    assert choice.certificate.after.mean == pytest.approx(-1.0)


@pytest.mark.parametrize("outputs", [[GOOD, BAD], [GOOD], [PROMPT, GOOD], [BAD, BAD, PROMPT]])
def test_equal_rewrites_pay_for_their_own_answers(outputs):
    """Holds down: they shared the answers of the first, whose noise stayed for ever."""
    target = FakeTarget()
    found = drawn(FakePrompter(outputs), rewarded(worth), target, samples=6, guard="off")
    asked = [question.messages[-1].content for question in target.asked]
    assert asked == [PROMPT, *(outputs * 6)[:6]]
    assert len({question.sampling.seed for question in target.asked}) == 7
    assert found.certificate.target_tokens == 3 * (2 + 6 * 2)


def test_answers_to_equal_rewrites_count_together():
    """Six times two answers say more than two: only the first answer to BAD is a good one."""
    reward = Reward(
        [FakeScorer(lambda sent, n: 9.0 if (sent, n) == (BAD, 0) else worth(sent))], {"r": 1}
    )
    prompter = FakePrompter([BAD, GOOD])
    certificate = drawn(prompter, reward, samples=12, strength=0.1, guard="off").certificate
    assert certificate.scored == 12
    assert certificate.after.answers == 12


def test_candidate_i_and_its_answers_do_not_depend_on_the_count():
    asked = []
    for samples in (2, 4):
        target = FakeTarget()
        texts = [f"{GOOD} {number}" for number in range(4)]
        reward = Reward([FakeScorer(lambda sent, n: 0.1 * n)], {"r": 1.0})
        drawn(FakePrompter(texts), reward, target, samples=samples, guard="off")
        asked.append({q.messages[-1].content: q.sampling.seed for q in target.asked})
    two, four = asked
    assert len(four) == 5
    assert all(four[text] == seed for text, seed in two.items())
    assert len(set(four.values())) == 5


@pytest.mark.parametrize(
    ("outputs", "finish", "kind"),
    [
        (["Say it in 6 km."], "stop", "span"),
        ([""], "stop", "empty"),
        ([GOOD], "length", "rambling"),
    ],
)
def test_what_is_refused_costs_no_call_and_is_counted(outputs, finish, kind):
    target = FakeTarget()
    choice = drawn(FakePrompter(outputs, finish=finish), target=target, prompt="How far is 5 km?")
    assert choice.sent == "How far is 5 km?"
    assert choice.certificate.refused == {kind: 1}
    assert not target.asked


def test_a_prompter_that_leaves_the_prompt_as_it_is_says_so():
    choice = drawn(FakePrompter([PROMPT]))
    assert (choice.sent, choice.changed, choice.certificate.refused) == (PROMPT, False, {})
    assert choice.reason == "the prompter left your prompt as it is"


HINTED = f"{PROMPT}\n\nAnswer in steps."


@pytest.mark.parametrize(
    ("doubt", "no_hint", "sent"),
    [
        (DOUBT, 0.0999, HINTED),
        (DOUBT, 0.1001, PROMPT),
        (0.4, 0.3999, HINTED),
        (0.4, 0.4001, PROMPT),
        (1.0, 0.9999, HINTED),
    ],
)
def test_a_prompter_in_doubt_adds_nothing(doubt, no_hint, sent):
    """A hint that it was not sure of talked the target out of refusing."""
    prompter = FakePrompter([HINTED])
    prompter.no_hint = no_hint
    prompter.profile = replace(prompter.profile, doubt=doubt)
    choice = drawn(prompter)
    assert choice.sent == sent
    assert (choice.reason == "the prompter doubts that a hint helps") == (sent == PROMPT)
    assert len(prompter.started) == (0 if sent == PROMPT else 1)


def test_cancelling_while_it_is_asked_for_doubt_is_no_doubt(monkeypatch):
    """A cancelled score is 0, the logarithm of certainty: the certificate blamed the prompter."""
    cancellation = Cancellation()
    prompter: Any = FakePrompter([HINTED])
    target: Any = FakeTarget()

    def score(*asked):
        cancellation.cancel()
        return [0.0]

    monkeypatch.setattr(prompter, "score", score)
    models = DrawModels(prompter, target, None)
    choice = draw(models, protect(PROMPT), Request(), cancellation)
    assert (choice.sent, choice.reason) == (PROMPT, "cancelled")


def test_the_prompt_as_a_candidate_and_by_itself_is_one_text():
    """Nothing is left to race for, and the best of all its answers is returned."""
    reward = rewarded(lambda sent: 1.0 if sent == PROMPT else -1.0)
    choice = drawn(FakePrompter([PROMPT]), reward, samples=2, answers=2, guard_answers=8)
    found = choice.certificate
    assert choice.reason == "the prompter left your prompt as it is"
    assert (found.after, found.gain) == (found.before, None)
    assert found.before.answers == 2
    assert found.target_tokens == 3 * (2 + 2 * 2)
    best = Reward([FakeScorer(lambda sent, number: float(number == 5))], {"r": 1.0})
    assert drawn(FakePrompter([PROMPT]), best, samples=2).answer.text.startswith(f"{PROMPT}#5#")


def test_none_that_survives_leaves_the_prompt_and_says_why():
    prompter = FakePrompter([GOOD], finish="length")
    choice = drawn(prompter, rewarded(worth), samples=4)
    assert choice.sent == PROMPT
    assert choice.reason == "none of 4 rewrites may be used (4 rambling)"
    assert choice.answer.text.startswith(PROMPT)


def test_a_candidate_whose_reward_is_no_number_is_dropped_and_named():
    reward = rewarded(lambda sent: math.nan if sent == BAD else worth(sent))
    choice = drawn(FakePrompter([BAD, GOOD]), reward, samples=2)
    assert choice.sent == GOOD
    assert choice.certificate.dropped == ("candidate 0: its reward is not a number",)
    assert choice.certificate.scored == 1


def test_no_reward_at_all_leaves_the_prompt_with_a_warning():
    choice = drawn(FakePrompter([BAD, GOOD]), rewarded(lambda sent: math.nan), samples=2)
    assert choice.sent == PROMPT
    assert choice.reason == "no rewrite has a reward"
    assert any("not numbers" in sentence for sentence in choice.certificate.notes)


def test_a_constant_reward_is_reported_and_changes_nothing():
    reward = Reward([FakeScorer(lambda sent, n: 0.25)], {"r": 1.0})
    choice = drawn(FakePrompter([BAD, GOOD]), reward, samples=2)
    assert choice.sent == PROMPT
    assert choice.certificate.gain.expected == 0
    assert choice.certificate.notes == (
        "All 6 scores of 'r' are 0.25.",
        "All 14 scores of 'r' are 0.25.",
    )


def test_a_rewrite_that_does_not_fit_the_context_is_dropped():
    long = " ".join([GOOD] * 20)
    choice = drawn(FakePrompter([long, GOOD]), rewarded(worth), FakeTarget(room=200), samples=2)
    assert choice.certificate.dropped == ("candidate 0: it does not fit the context",)
    assert choice.sent == GOOD


def test_room_is_needed_for_a_whole_answer_and_not_for_all_trials():
    """Holds down: a rewrite with room for its trials only made the answer overflow."""
    target = FakeTarget()
    drawn(FakePrompter([GOOD]), rewarded(worth), target)
    assert target.room_for == {(512, 1)}


@pytest.mark.parametrize("samples", [1, 2])
def test_a_rewrite_without_room_leaves_the_prompt_where_there_is_no_reward(samples):
    """Holds down: the request failed, although the prompt itself fits."""
    long = " ".join([GOOD] * 20)
    choice = drawn(FakePrompter([long]), target=FakeTarget(room=200), samples=samples)
    assert (choice.sent, choice.reason) == (PROMPT, "no rewrite fits the context")
    both = drawn(FakePrompter([long, GOOD], [9.0, 0.0]), target=FakeTarget(room=200), samples=2)
    assert both.sent == GOOD


def test_without_time_to_judge_balanced_decides_by_what_there_is():
    """A budget that is used up by the trials has still bought answers to both."""
    budget = Budget(tokens=96 * (8 + 2 + 8))
    spent = FakeTarget(tokens=96)
    spent_all = FakeTarget(tokens=120)
    for guard, sent in (("balanced", GOOD), ("strict", PROMPT)):
        settings = {"guard": guard, "budget": budget}
        assert drawn(FakePrompter([GOOD]), rewarded(worth), spent, **settings).sent == GOOD
        choice = drawn(FakePrompter([GOOD]), rewarded(worth), spent_all, **settings)
        assert choice.sent == sent
        assert choice.certificate.gain.expected > 0.9


def test_a_budget_too_small_for_one_candidate_asks_nothing():
    target = FakeTarget()
    choice = drawn(FakePrompter([GOOD]), rewarded(worth), target, budget=Budget(tokens=100))
    assert choice.sent == PROMPT
    assert choice.reason.startswith("the budget is too small for one candidate")
    assert not target.asked


def test_a_budget_limits_how_many_candidates_are_answered():
    texts = [f"{GOOD} {number}" for number in range(8)]
    target = FakeTarget(tokens=96)
    reward = Reward([FakeScorer(lambda sent, n: 0.1 * n)], {"r": 1.0})
    budget = Budget(tokens=96 * (2 + 2 * 3))
    found = drawn(
        FakePrompter(texts), reward, target, samples=8, guard="off", budget=budget
    ).certificate
    assert (found.drawn, found.scored, found.target_tokens) == (3, 3, budget.tokens)
    assert found.notes == ("The budget was enough for 3 of 8 candidates.",)


def test_what_short_answers_leave_of_a_budget_buys_more_candidates():
    texts = [f"{GOOD} {number}" for number in range(8)]
    reward = Reward([FakeScorer(lambda sent, n: 0.1 * n)], {"r": 1.0})
    budget = Budget(tokens=96 * (2 + 2 * 3))
    found = drawn(FakePrompter(texts), reward, samples=8, guard="off", budget=budget).certificate
    assert found.drawn == 8


def test_auto_stops_when_it_is_close_enough():
    texts = [f"{GOOD} {number}" for number in range(64)]
    reward = Reward([FakeScorer(lambda sent, n: 0.001 * n)], {"r": 1.0})
    prompter = FakePrompter(texts)
    choice = drawn(prompter, reward, samples="auto", strength=1.0, tolerance=0.1, guard="off")
    assert prompter.started == [(0, 4), (4, 4), (8, 8)]
    assert choice.certificate.diagnostics.distance <= 0.1


def test_auto_ends_at_the_budget_and_at_last_at_its_limit():
    texts = [f"{GOOD} {number}" for number in range(64)]

    def steep_worth(sent, number):
        return 0.0 if sent == PROMPT else float(sent.rsplit(" ")[-1])

    steep = Reward([FakeScorer(steep_worth)], {"r": 1.0})
    prompter = FakePrompter(texts)
    drawn(prompter, steep, samples="auto", strength=0.01, guard="off")
    assert sum(count for _, count in prompter.started) == MOST_SAMPLES
    prompter = FakePrompter(texts)
    drawn(prompter, steep, samples="auto", strength=0.01, guard="off", budget=Budget(tokens=450))
    assert sum(count for _, count in prompter.started) < MOST_SAMPLES


def test_auto_without_a_reward_is_refused():
    with pytest.raises(InputError, match="auto needs a reward"):
        drawn(FakePrompter([GOOD]), samples="auto")


@pytest.mark.parametrize("settings", [{"guard": "off"}, {"guard": "strict"}, {"samples": "auto"}])
def test_lambda_must_be_known_where_candidates_are_weighed(settings):
    with pytest.raises(InputError, match="needs λ"):
        drawn(FakePrompter([GOOD], strength=None), rewarded(worth), **settings)


def test_a_race_needs_no_lambda():
    """Holds down: `run --samples 4 --reward default` was refused by both shipped prompters."""
    found = drawn(FakePrompter([GOOD, BAD], strength=None), rewarded(worth), samples=4)
    assert found.sent == GOOD
    assert found.certificate.strength is None
    assert found.certificate.diagnostics is None
    assert found.certificate.gain.expected > 0


def test_a_reward_that_fails_stops_the_request():
    def fails(sent, number):
        raise RewardError("Broken.", "Mend it.")

    with pytest.raises(RewardError):
        drawn(FakePrompter([GOOD]), Reward([FakeScorer(fails)], {"r": 1.0}))


def test_cancelling_leaves_the_prompt():
    cancellation = Cancellation()
    cancellation.cancel()
    prompter: Any = FakePrompter([GOOD])
    target: Any = FakeTarget()
    models = DrawModels(prompter, target, None)
    choice = draw(models, protect(PROMPT), Request(), cancellation)
    assert (choice.sent, choice.reason) == (PROMPT, "cancelled")


def test_a_small_lambda_takes_the_best_and_a_large_one_ignores_the_reward():
    texts = [GOOD, BAD]
    picks = {
        strength: [
            drawn(
                FakePrompter(texts),
                rewarded(worth),
                samples=16,
                strength=strength,
                seed=seed,
                guard="off",
            ).sent
            for seed in range(20)
        ]
        for strength in (1e-6, 1e6)
    }
    assert set(picks[1e-6]) == {GOOD}
    # All weights are alike: every proposal is accepted, so the last candidate stays, however bad.
    assert set(picks[1e6]) == {BAD}


@pytest.mark.parametrize(
    "wrong",
    [
        {"guard": "loose"},
        {"guard": True},
        {"guard": None},
        {"samples": 0},
        {"samples": -1},
        {"strength": 0.0},
        {"strength": -1.0},
        {"strength": math.inf},
        {"strength": math.nan},
        {"answers": 0},
        {"guard_answers": 1},
        {"trial_tokens": 0},
        {"tolerance": 0.0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(InputError):
        RhoStar(**wrong)


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"seconds": 0.0}, {"seconds": math.nan}], ids=str)
def test_a_budget_that_buys_nothing_is_refused(wrong):
    with pytest.raises(InputError, match="budget"):
        Budget(**wrong)


# The tiny committed models, whole.


TINY = Request(
    max_tokens=24,
    sampling=Sampling(temperature=1.0, seed=5),
    # Random weights end at once when they are hot, and write broken text when they are not.
    rewrite_sampling=Sampling(temperature=2.5),
    rho_star=RhoStar(samples=6, strength=2.0, guard="off", trial_tokens=8),
)


def test_a_whole_draw_repeats_with_its_seed(model):
    first, second = (model.run(PROMPT, TINY) for _ in range(2))
    assert first.certificate == second.certificate
    assert (first.choice.sent, first.answer) == (second.choice.sent, second.answer)
    assert first.certificate.drawn == 6


def test_a_trial_is_continued_to_the_whole_answer(model):
    result = model.run(PROMPT, TINY)
    assert result.answer_tokens > 8 or result.finish_reason == "stop"
    fresh = replace(TINY, rho_star=replace(TINY.rho_star, returns="fresh"))
    assert model.run(PROMPT, fresh).choice.sent == result.choice.sent


def test_a_language_model_that_cannot_be_unpacked_names_the_cure(monkeypatch):
    """Regression: "No space left on device" and nothing else, as an OSError."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("alignpro_lite.rewriting.language_tables.shutil.copyfileobj", fail)
    with pytest.raises(RegistryError, match=r"No space left on device.*TMPDIR"):
        language_model.__wrapped__()


def test_a_language_model_that_fails_to_load_is_an_error_of_loading(monkeypatch):
    def fail():
        raise InputError("No languages.", "Install them.")

    monkeypatch.setattr("alignpro_lite.opening.language_model", fail)
    devices = DeviceRequest("cpu")
    with pytest.raises(InputError, match="No languages"):
        AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=devices)
    AlignedModel.load(TINY_TARGET, None, devices=devices).close()


def test_the_reference_of_a_gated_bundle_is_its_base(model):
    """At gate 0 the graph must be the base under the same template, not a third model."""
    rewrites = model.prompter.rewrite(PROMPT, 4, Sampling(temperature=2.0, seed=1))
    outputs = [rewrite.tokens for rewrite in rewrites]
    tuned = model.prompter.score(PROMPT, outputs)
    base = model.prompter.reference_score(PROMPT, outputs)
    assert tuned == pytest.approx([rewrite.log_prob for rewrite in rewrites], abs=1e-3)
    assert max(abs(a - b) for a, b in zip(tuned, base, strict=True)) > 0.5


def test_scores_do_not_depend_on_what_is_scored_beside(model):
    rewrites = model.prompter.rewrite(PROMPT, 6, Sampling(temperature=2.0, seed=2))
    outputs = [rewrite.tokens[: 3 + place] for place, rewrite in enumerate(rewrites)]
    together = model.prompter.reference_score(PROMPT, outputs)
    alone = [model.prompter.reference_score(PROMPT, [output])[0] for output in outputs]
    assert together == pytest.approx(alone, abs=1e-4)
