"""Checks of an answer against the reference of its prompt: right, wrong, and no traceback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.check import CheckScorer
from alignpro_lite.reward.exchange import Exchange, TaskReference
from alignpro_lite.reward.gsm8k import NumberCheck, last_number
from alignpro_lite.reward.loading import ScorerSource, open_reward
from alignpro_lite.train.prompter.config import PrompterConfig

WORKED = "She sells 9 eggs at $2 each.\n9 * 2 = <<9*2=18>>18\n#### 18"

RIGHT = [
    ("She earns 18 dollars a day.", WORKED),
    ("9 * 2 = 18", WORKED),
    ("The total is $18.", WORKED),
    ("The total is 18.00 dollars", WORKED),
    ("**18**", WORKED),
    ("\\boxed{18}", WORKED),
    ("#### 18", WORKED),
    ("Step 1: 3 + 4 = 7.\nStep 2: 16 - 7 = 9.\nSo the answer is: 18!", WORKED),
    ("It costs 70,000 in all", "so the profit is 70,000\n#### 70000"),
    ("It costs 70000", "#### 70,000"),
    ("€1,234,567.50", "#### 1234567.5"),
    ("It loses -5 degrees", "#### -5"),
    ("a loss of \N{MINUS SIGN}$1,200.", "#### -1200"),
    ("a loss of $-3", "#### -3"),
    ("That leaves .5 of it", "#### 0.5"),
    ("Between them: 20-18", "#### 18"),
    ("He is 18 years old, born in the spring", "18"),
    ("50%", "#### 50"),
    ("She runs 18km", "#### 18."),
    ("One half is 1/2", "#### 2"),
]
"""Answers that are right, with the reference. The last shows what published evaluations do with a
fraction: its denominator is the last number."""

WRONG = [
    ("She earns 18 dollars on each of 7 days.", WORKED),
    ("Eighteen", WORKED),
    ("", WORKED),
    ("   \n", WORKED),
    ("180", WORKED),
    ("-18", WORKED),
    ("1.8", WORKED),
    ("1/2", "#### 0.5"),
    ("$", WORKED),
    ("####", WORKED),
    (",.-", WORKED),
]


@pytest.mark.parametrize(("answer", "reference"), RIGHT)
def test_the_last_number_of_a_right_answer_is_the_references(answer, reference):
    assert scored("gsm8k", answer, reference) == 1


@pytest.mark.parametrize(("answer", "reference"), WRONG)
def test_any_other_answer_is_wrong_and_no_error(answer, reference):
    assert scored("gsm8k", answer, reference) == 0


@settings(deadline=None)
@given(st.text(), st.integers(-(10**12), 10**12))
def test_a_number_at_the_end_is_found_however_it_is_written(before, number):
    sign = "-" if number < 0 else ""
    for written in (str(number), f"{number:,}", f"{sign}${abs(number):,}.00."):
        assert last_number(f"{before} {written}") == number


@settings(deadline=None)
@given(st.text(alphabet="0123456789,.-$/ \n"))
def test_no_text_breaks_the_search_for_a_number(text):
    NumberCheck().score("", text, "#### 1")


@pytest.mark.parametrize("reference", ["#### 1/2", "eighteen", "#### ", "#### 18 eggs", "1 2"])
def test_a_reference_without_a_number_is_refused_with_its_prompt(reference):
    with pytest.raises(InputError, match=r"The prompt 'How many.*must be a number") as caught:
        scorer_of("gsm8k", reference)
    assert caught.value.cure


@pytest.mark.parametrize(
    "answer", ["Paris", " paris.\n", "PARIS", "\N{FULLWIDTH LATIN CAPITAL LETTER P}aris"]
)
def test_an_exact_answer_may_differ_in_case_spaces_and_a_full_stop(answer):
    assert scored("exact", answer, "Paris") == 1


@pytest.mark.parametrize("answer", ["It is Paris.", "Pari s", "", ".", "Paris!"])
def test_an_answer_that_says_more_or_less_is_not_exact(answer):
    assert scored("exact", answer, "Paris") == 0


def test_a_reference_of_which_nothing_is_left_is_refused():
    with pytest.raises(InputError, match="must be the right answer"):
        scorer_of("exact", " . ")


def test_a_prompt_without_a_reference_scores_the_same_whatever_is_answered():
    """A run may mix prompts of both sorts: what is equal for all rewrites teaches nothing."""
    scorer = scorer_of("gsm8k", WORKED)
    scores = scorer.score([Exchange("Write a poem.", "18"), Exchange("Write a poem.", "19")])
    np.testing.assert_array_equal(scores, [[0.0], [0.0]])


def test_a_check_without_any_reference_is_refused():
    source = ScorerSource("check", "gsm8k", {"right": 1.0})
    with pytest.raises(InputError, match="needs prompts with a reference, found none") as caught:
        open_reward([source], ModelStore.open(), threads=1)
    assert "reference =" in caught.value.cure


def test_task_is_the_check_that_the_data_of_each_prompt_name():
    references = {
        "Sum?": TaskReference("gsm8k", "#### 18"),
        "Capital?": TaskReference("exact", "Paris"),
    }
    source = ScorerSource("check", "task", {"right": 2.0})
    with open_reward([source], ModelStore.open(), 1, references) as reward:
        scores = reward.score(
            [
                Exchange("Sum?", "It is 18."),
                Exchange("Capital?", "It is Paris."),
                Exchange("Capital?", "paris"),
                Exchange("Another", "paris"),
            ]
        )
        assert list(scores.total) == [2, 0, 2, 0]
        assert list(scores.parts["right"]) == [1, 0, 1, 0]
        assert list(reward.weighted({"right": 0.5}).score([Exchange("Sum?", "18")]).total) == [0.5]


CONFIG = """
[[reward]]
kind = "check"
source = "{source}"
weights = {{ right = 1.0 }}
[objective]
strength = 0.1
[data]
prompts = [{{ path = "p.jsonl", format = "{form}"{more} }}]
"""


@pytest.mark.parametrize(
    ("source", "form", "more", "message"),
    [
        ("gsm", "gsm8k", "", "source of a check must be task, exact, gsm8k or ifeval, found 'gsm'"),
        ("gsm8k", "gsm8k", ', reference = "a"', "format gsm8k says itself where the reference is"),
        ("gsm8k", "csv", "", "format must be"),
        ("exact", "prompt", ', reference = ""', "reference must be"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_once(tmp_path, source, form, more, message):
    file = tmp_path / "prompter.toml"
    file.write_text(CONFIG.format(source=source, form=form, more=more))
    with pytest.raises(InputError, match=message):
        read_config(file, PrompterConfig)


def scorer_of(source, reference):
    return CheckScorer(source, "right", {"How many?": TaskReference("exact", reference)})


def scored(source, answer, reference):
    known = TaskReference("exact", reference)  # the reward decides, not the data
    exchange = Exchange("How many?", answer, reference=known)
    ((score,),) = scorer_of(source, reference).score([exchange])
    return score
