"""The token trie against each of its sequences run alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from alignpro_lite.train.token_trie import pack, sequence_log_probs
from tests.support.tiny_models import configurations

# Two tokens often enough that sequences share beginnings of every length.
TOKENS = st.lists(st.sampled_from([3, 4, 380]), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configurations()["llama"]).eval()


def packed(model, contexts, continuations):
    trie = pack(contexts, continuations)
    logits = model(
        input_ids=trie.ids[None],
        position_ids=trie.positions[None],
        attention_mask=trie.visible[None, None],
        logits_to_keep=trie.sources,
        use_cache=False,
    ).logits[0]
    return sequence_log_probs(trie, logits)


def alone(model, context, tokens):
    log_probs = model(torch.tensor([[*context, *tokens]])).logits[0].log_softmax(-1)
    places = range(len(context) - 1, len(context) + len(tokens) - 1)
    return sum(log_probs[place, token] for place, token in zip(places, tokens, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6))
def test_packed_log_probabilities_are_those_of_each_sequence_alone(model, sequences):
    contexts, continuations = zip(*sequences, strict=True)
    with torch.no_grad():
        expected = [alone(model, *sequence) for sequence in sequences]
        found = packed(model, contexts, continuations)
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-5, rtol=1e-5)


def test_the_structure_of_a_small_example_by_hand():
    """[1 2] → [3 4] and [1 2] → [3 5] share 1, 2 and 3; [1] → [2] ends inside the same path."""
    trie = pack([[1, 2], [1, 2], [1]], [[3, 4], [3, 5], [2]])
    assert trie.ids.tolist() == [1, 2, 3]  # nothing follows 4, 5 and the last 2
    assert trie.positions.tolist() == [0, 1, 2]
    assert trie.visible.tolist() == [[True, False, False], [True, True, False], [True] * 3]
    assert trie.sources.tolist() == [0, 1, 2]
    assert trie.sources[trie.source].tolist() == [1, 2, 1, 2, 0]
    assert trie.target.tolist() == [3, 4, 3, 5, 2]
    assert trie.sequence.tolist() == [0, 0, 1, 1, 2]
    assert trie.sequences == 3


def test_branches_do_not_see_each_other():
    trie = pack([[1], [1], [7]], [[2, 9], [3, 9], [2, 9]])
    assert trie.ids.tolist() == [1, 2, 3, 7, 2]
    assert trie.positions.tolist() == [0, 1, 1, 0, 1]
    seen = [row.nonzero().flatten().tolist() for row in trie.visible]
    assert seen == [[0], [0, 1], [0, 2], [3], [3, 4]]


def test_log_probabilities_of_a_sequence_are_summed_by_hand():
    trie = pack([[1], [1]], [[0, 1], [1]])
    chances = torch.tensor([[0.25, 0.75], [0.5, 0.5]])  # after 1, and after 1 0
    found = sequence_log_probs(trie, chances.log())
    torch.testing.assert_close(found.exp(), torch.tensor([0.25 * 0.5, 0.75]))


def test_the_gradient_is_that_of_the_sequences_alone(model):
    """A shared node gets the sum of the gradients of all that pass through it."""
    contexts, continuations = [[3, 4], [3, 4], [3]], [[5, 2], [5, 6, 2], [4, 2]]
    weight = model.model.layers[0].self_attn.q_proj.weight
    (together,) = torch.autograd.grad(packed(model, contexts, continuations).sum(), weight)
    separate = torch.zeros_like(weight)
    for context, tokens in zip(contexts, continuations, strict=True):
        separate += torch.autograd.grad(alone(model, context, tokens), weight)[0]
    assert together.abs().max() > 0
    torch.testing.assert_close(together, separate, atol=1e-5, rtol=1e-4)


def test_as_many_contexts_as_continuations():
    with pytest.raises(ValueError, match="shorter"):
        pack([[1], [2]], [[3]])
