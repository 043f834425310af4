"""What several systems send alike is answered once."""

from __future__ import annotations

from functools import partial

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.eval.bench import System
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.runner import TOGETHER, answer_all
from alignpro_lite.eval.shared_answers import SharedAnswers
from alignpro_lite.eval.systems import send_fixed
from alignpro_lite.target.rollout import AnswerPlan
from tests.support.records import SpokenTarget, bench_of, lineup_of


def hint_every_second(prompt: str) -> str:
    return f"{prompt}, briefly" if int(prompt.split()[-1]) % 2 else prompt


def test_a_prompt_that_stays_as_it_is_is_answered_once(tmp_path):
    """Holds down: a prompter that left most prompts alone took as long as one that rewrote them."""
    lineup = lineup_of({"none": ["d"], "prompter": ["d"]}, prompts=TOGETHER + 3)
    target = SpokenTarget(lambda text, seed: f"{text} {seed}")
    hinting = partial(send_fixed, rewrite=hint_every_second)
    systems: dict[str, System] = {"none": send_fixed, "prompter": hinting}
    records = answer_all(
        lineup, bench_of(target), systems.__getitem__, Journal(tmp_path / "r", ""), print
    )
    answers = {(record.system, record.number): record.answers for record in records}
    for number, prompt in enumerate(lineup.prompts["d"]):
        is_same = answers["none", number] == answers["prompter", number]
        assert is_same == (hint_every_second(prompt) == prompt)
    changed = [x for x in map(hint_every_second, lineup.prompts["d"]) if x.endswith("briefly")]
    assert sorted(target.asked) == sorted(2 * [*lineup.prompts["d"], *changed])


def test_only_the_same_question_drawn_alike_shares_an_answer():
    target = SpokenTarget(lambda text, seed: f"{text} {seed}")
    shared, plan = SharedAnswers(target), AnswerPlan()

    def ask(texts, seeds, plan=plan):
        found = shared.answers([[Message("user", text)] for text in texts], plan, seeds)
        return [answer.text for (answer,) in found]

    assert ask(["a", "b", "a"], [1, 1, 1]) == ["a 1", "b 1", "a 1"]
    assert target.asked == ["a", "b"]
    assert ask(["b", "a", "c"], [1, 2, 1]) == ["b 1", "a 2", "c 1"]
    assert target.asked == ["a", "b", "a", "c"]
    ask(["a"], [1], AnswerPlan(max_tokens=9))
    assert target.asked[4:] == ["a"]
    assert shared.answers([], plan, []) == []
