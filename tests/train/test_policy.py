"""The prompter in torch: what it draws, and what probability it gives to what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from alignpro_lite.decoding.sampling import Sampling, filtered_log_probs, log_softmax
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.train.policy import Policy, draw_tokens, weights_dtype
from alignpro_lite.train.prompter.config import LoraSection
from tests.support.tiny_models import configurations, write_model

TEMPLATE = RewriteTemplate("augment", "Help.", "{prompt}", ())
PROMPTS = ["Name a river.", "Why is the sky blue? Explain it in three plain sentences.", "Go"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("policy") / "base", configurations()["llama"])


@pytest.fixture(scope="module")
def decided(base, tmp_path_factory):
    """The same model with logits so large that every draw takes the most likely token."""
    source = load_torch_model(base)
    source.model.model.norm.weight.data *= 500
    folder = tmp_path_factory.mktemp("policy") / "decided"
    source.save_folder(folder)
    return folder


def policy_of(base, max_tokens=6, dtype="float32"):
    section = LoraSection(dtype=dtype, rank=4, alpha=8.0)
    return Policy(base, TEMPLATE, section, max_tokens, "cpu", seed=0)


def moved(policy):
    """Give the adapter weights as after some training."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return policy


def drawn(policy, count=4, seed=3):
    """Prompts and outputs, one a row."""
    outputs = policy.sample(PROMPTS, count, Sampling(seed=seed))
    rows = [
        (prompt, output) for prompt, drawn in zip(PROMPTS, outputs, strict=True) for output in drawn
    ]
    return [prompt for prompt, _ in rows], [output for _, output in rows]


def plain_log_prob(policy, prompt, output):
    request = policy.tokens.request(prompt)
    logits = policy.model(torch.tensor([[*request, *output]])).logits[0, len(request) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(output)[:, None]).sum()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_fresh_adapter_changes_nothing_at_all(base, dtype):
    policy = policy_of(base, dtype=dtype)
    trie = policy.pack(*drawn(policy))
    with torch.no_grad():
        assert torch.equal(policy.log_probs(trie), policy.reference_log_probs(trie))


def test_log_probabilities_are_those_of_a_plain_forward_pass(base):
    policy = moved(policy_of(base))
    prompts, outputs = drawn(policy)
    trie = policy.pack(prompts, outputs)
    pairs = list(zip(prompts, outputs, strict=True))
    with torch.no_grad():
        own = torch.stack([plain_log_prob(policy, *pair) for pair in pairs])
        torch.testing.assert_close(policy.log_probs(trie), own, atol=1e-4, rtol=1e-5)
        with policy.model.disable_adapter():
            reference = torch.stack([plain_log_prob(policy, *pair) for pair in pairs])
    torch.testing.assert_close(policy.reference_log_probs(trie), reference, atol=1e-4, rtol=1e-5)
    assert (own - reference).abs().max() > 0.1


def test_only_the_adapter_learns(base):
    policy = policy_of(base)
    policy.log_probs(policy.pack(*drawn(policy))).sum().backward()
    learning = {
        name for name, parameter in policy.model.named_parameters() if parameter.grad is not None
    }
    assert learning
    assert all("lora_" in name for name in learning)


def test_a_seed_repeats_its_draws_and_another_does_not(base):
    policy = policy_of(base)
    assert drawn(policy, seed=3) == drawn(policy, seed=3)
    assert drawn(policy, seed=3) != drawn(policy, seed=4)


def test_an_output_ends_at_the_stop_token_or_at_the_limit(base):
    policy = policy_of(base, max_tokens=5)
    often = tuple(range(0, 384, 6))
    policy.tokens._known = replace(policy.tokens._known, stop=often)
    _, outputs = drawn(policy, count=40)
    lengths = {len(output) for output in outputs}
    assert lengths == {1, 2, 3, 4, 5}
    for output in outputs:
        assert not set(output[:-1]) & set(often)
        assert output[-1] in often or len(output) == 5


@pytest.mark.parametrize("count", [1, 3])
def test_rows_that_end_early_leave_the_others_as_they_are(decided, count):
    """A cache row dropped for the wrong sequence, or padding seen, would change a draw."""
    policy = policy_of(decided, max_tokens=8)
    greedy = [most_likely(policy, prompt, stop=()) for prompt in PROMPTS]
    policy.tokens._known = replace(policy.tokens._known, stop=(greedy[0][2], greedy[1][4]))
    expected = [most_likely(policy, prompt, policy.tokens.stop) for prompt in PROMPTS]
    assert len({len(output) for output in expected}) > 1
    assert policy.sample(PROMPTS, count, Sampling()) == [[output] * count for output in expected]


def most_likely(policy, prompt, stop):
    ids = policy.tokens.request(prompt)
    output = []
    while len(output) < policy.max_tokens and not (output and output[-1] in stop):
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*ids, *output]])).logits[0, -1]
        output.append(int(logits.argmax()))
    return tuple(output)


def test_first_tokens_come_as_often_as_they_are_likely(base):
    """Chi-square over tokens expected at least 5 times, the rest as one."""
    policy, count = policy_of(base, max_tokens=2), 1500
    for prompt, outputs in zip(PROMPTS, policy.sample(PROMPTS, count, Sampling()), strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([policy.tokens.request(prompt)])).logits[0, -1]
        expected = count * logits.double().softmax(-1).numpy()
        found = np.bincount([output[0] for output in outputs], minlength=expected.size)
        often = expected >= 5
        assert often.sum() > 10
        expected = np.append(expected[often], expected[~often].sum())
        found = np.append(found[often], found[~often].sum())
        statistic = ((found - expected) ** 2 / expected).sum()
        freedom = expected.size - 1
        assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def test_the_sampler_follows_the_adapter_only_when_told(base):
    policy = policy_of(base)
    untrained = drawn(policy)
    moved(policy)
    assert drawn(policy) == untrained
    policy.refresh_sampler()
    assert drawn(policy) != untrained
    ids = torch.tensor([policy.tokens.request(PROMPTS[0])])
    with torch.no_grad():
        torch.testing.assert_close(
            policy._sampler(ids).logits, policy.model(ids).logits, atol=1e-4, rtol=1e-4
        )
    policy.reset_sampler()
    assert drawn(policy) == untrained


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=0.8, top_k=6),
        Sampling(temperature=1.5, top_p=0.7),
        Sampling(temperature=0.7, min_p=0.2),
        Sampling(temperature=0.8, top_k=9, top_p=0.9, min_p=0.05),
        Sampling(top_k=1),
        Sampling(top_k=1000),
        Sampling(top_p=1e-9),
    ],
)
def test_tokens_are_drawn_by_the_filters_that_answers_are_judged_under(sampling):
    """Holds down: the oracle was trained on other draws than those that it was judged by."""
    logits = np.random.default_rng(0).normal(0, 2, 12).astype(np.float32)
    rows = torch.tensor(logits).repeat(40_000, 1)
    drawn = draw_tokens(rows, sampling, torch.Generator().manual_seed(0))
    found = np.bincount(drawn, minlength=12) / len(drawn)
    expected = np.zeros(12)
    ids, log_probs = filtered_log_probs(log_softmax(logits), sampling)
    expected[ids] = np.exp(log_probs)
    assert found == pytest.approx(expected, abs=0.012)
    assert not found[expected == 0].any()


def test_log_probabilities_are_those_at_a_temperature(base):
    """Of both, so that their ratio is that of what is drawn."""
    policy = moved(policy_of(base))
    trie = policy.pack(*drawn(policy))
    with torch.no_grad():
        warm, plain = policy.log_probs(trie, 0.5), policy.log_probs(trie)
        warm_reference = policy.reference_log_probs(trie, 0.5)
        assert not torch.allclose(warm, plain)
        assert not torch.allclose(warm_reference, policy.reference_log_probs(trie))
        with policy.model.disable_adapter():
            torch.testing.assert_close(policy.log_probs(trie, 0.5), warm_reference)


@pytest.mark.parametrize(
    ("device", "flags", "dtype"),
    [
        ("cpu", {"avx2", "f16c"}, torch.float32),
        ("cpu", {"avx2", "avx512_bf16"}, torch.bfloat16),
        ("cpu", {"bf16"}, torch.bfloat16),
        ("cuda:0", set(), torch.bfloat16),
    ],
)
def test_half_precision_is_for_devices_that_compute_in_it(monkeypatch, device, flags, dtype):
    """A CPU with AVX2 alone multiplies seven times slower in bfloat16 than in float32."""
    monkeypatch.setattr("alignpro_lite.train.policy.cpu_flags", lambda: frozenset(flags))
    assert weights_dtype("auto", torch.device(device)) == dtype
    assert weights_dtype("float32", torch.device(device)) == torch.float32
