"""Callers take turns: in the queue itself, and in the loop that takes from it."""

from __future__ import annotations

import threading

from alignpro_lite.decoding.fair_queue import FairQueue
from tests.support.scripted_stepper import FakeStepper, Gate, read_aside, scripts


def test_callers_take_turns_and_keep_their_own_order():
    queue: FairQueue[str] = FairQueue()
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.put(ord(name[0]), name)
    taken = []
    while queue:
        first = queue.first()
        assert queue.take() == first
        taken.append(first)
    assert taken == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_caller_who_comes_back_waits_for_the_others():
    queue: FairQueue[str] = FairQueue()
    queue.put(1, "a1")
    queue.put(2, "b1")
    assert queue.take() == "a1"
    queue.put(1, "a2")
    queue.put(2, "b2")
    assert list(queue) == ["b1", "b2", "a2"]
    assert [queue.take() for _ in range(3)] == ["b1", "a2", "b2"]


def test_one_caller_with_a_hundred_prompts_does_not_starve_another(start):
    """Holds down: the engine was first come, first served, whoever came with how much."""
    gate = Gate()
    stepper = FakeStepper(rows=1, micro_batch=8, before_prefill=gate)
    engine = start(stepper)
    many = [engine.submit([n + 1], scripts([n + 1], [7]), 1)[0] for n in range(100)]
    gate.wait_for_loop()
    others: list = []

    def ask() -> None:
        others.extend(engine.submit([500], scripts([500], [7]), 1))

    caller = threading.Thread(target=ask)
    caller.start()
    caller.join()
    gate.open()
    read_aside(*many, *others)()
    prompts = [call[2][0] for call in stepper.named("prefill")]
    assert prompts.index(500) <= 2
    assert [prompt for prompt in prompts if prompt != 500] == list(range(1, 101))
