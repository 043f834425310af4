"""Reward bundles: the graph scores what torch scores, and everything else is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
)

from alignpro_lite.cli import exit_code_of
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import BundleError, DeviceError, ExportError, InputError, ModelFileError
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.reward import (
    RewardRequest,
    compare_scores,
    export_reward,
    parity_exchanges,
)
from alignpro_lite.prompter.card import PROMPTER_CARD, PrompterCard
from alignpro_lite.prompter.targets import NO_TARGET
from alignpro_lite.prompter.template import REWRITE
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import write_record
from alignpro_lite.reward.bundle import REWARD_BUNDLE
from alignpro_lite.reward.classifier import HfScorer
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.loading import open_reward, scorer_named
from alignpro_lite.reward.onnx_reward import BATCH_TOKENS, OnnxScorer, _batches
from alignpro_lite.reward.torch_reward import REWARD_CARD, RewardCard, load_trained
from tests.support import TINY_TARGET
from tests.support.tiny_models import SENTENCES, configurations, write_adapter, write_model

pytestmark = pytest.mark.usefixtures("forked_converters")

CARD = RewardCard("tiny-bert", ("good", "kind"), 24, 40, {"accuracy": 0.5})
TALK = [
    Exchange("What is 12 + 345?", "It's 357, isn't it?"),
    Exchange("Explain why the sky is blue.", ""),
    Exchange("[SEP] [CLS] " * 30, "Write a short letter. " * 20),
]


def write_bert(folder, kind=BertForTokenClassification):
    """A random BERT with two outputs whose scores vary, with a WordPiece tokenizer."""
    torch.manual_seed(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=96,
        initializer_range=0.2,
        num_labels=2,
    )
    kind(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = write_bert(tmp_path_factory.mktemp("reward") / "trained")
    write_record(folder / REWARD_CARD, CARD)
    return folder


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    """The folder of an int8 bundle."""
    out = tmp_path_factory.mktemp("made") / "bundle"
    export_reward(RewardRequest(trained, trained, "int8", allow_mismatch=False), out)
    return out


def test_parts_weigh_what_is_asked_for_and_otherwise_one(trained, tmp_path):
    """Regression: parts always had equal weights, whatever a prompter was trained on."""
    first, *others = CARD.parts
    request = RewardRequest(trained, trained, "fp32", False, {first: 0.3})
    made = export_reward(request, tmp_path / "out")
    assert made.weights == {first: 0.3, **dict.fromkeys(others, 1.0)}
    with pytest.raises(ExportError, match=f"has no part wit, only {first}"):
        export_reward(replace(request, part_weights={"wit": 1.0}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.fixture
def bundle(made, tmp_path):
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(made, tmp_path / "bundle")


def test_an_int8_graph_scores_as_torch_does(made, trained):
    sidecar = REWARD_BUNDLE.read(made)
    assert sidecar.parity.correlation >= 0.995
    assert not sidecar.parity.mismatch_allowed
    assert sidecar.card == CARD.metrics
    assert sidecar.provenance.base_model == "tiny-bert"
    assert sidecar.provenance.adapter is None
    expected = load_trained(trained, trained).score(TALK).numpy()
    with open_reward([scorer_named(made)], ModelStore.open(), threads=1) as reward:
        scores = reward.score(TALK)
    for column, part in enumerate(CARD.parts):
        error = np.abs(scores.parts[part] - expected[:, column]).max()
        assert error < sidecar.parity.spread / 2
    np.testing.assert_allclose(scores.total, scores.parts["good"] + scores.parts["kind"])


def test_an_fp32_graph_equals_torch_and_replaces_the_old_bundle(trained, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        made = export_reward(RewardRequest(trained, trained, "fp32", False), out)
    assert made.parity.max_error < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    expected = load_trained(trained, trained).score(TALK).numpy()
    scorer = OnnxScorer(out, made.model, threads=1)
    np.testing.assert_allclose(scorer.score(TALK), expected, atol=1e-4)
    assert scorer.score([]).shape == (0, 2)


def test_a_score_does_not_depend_on_the_batch_and_markers_in_a_text_are_text(made):
    """Padding that is attended to, or a user's [SEP] taken for the model's own, would show."""
    scorer = OnnxScorer(made, REWARD_BUNDLE.read(made).model, threads=1)
    alone = np.concatenate([scorer.score([exchange]) for exchange in TALK])
    np.testing.assert_allclose(scorer.score(TALK), alone, atol=1e-3)
    marked = scorer._tokenizer.encode("[SEP]", add_special_tokens=False).ids
    assert 3 not in marked


def test_batches_hold_every_row_once_and_are_bounded():
    lengths = [3, 5000, 700, 1, 700, 700]
    batches = list(_batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= BATCH_TOKENS


def test_figures_of_a_comparison_by_hand():
    expected = np.array([[0.0], [1.0], [2.0]])
    assert compare_scores(expected, 2 * expected + 1) == pytest.approx((1, 1))
    correlation, agreement = compare_scores(expected, np.array([[0.0], [2.0], [1.0]]))
    assert correlation == pytest.approx(0.5)
    assert agreement == pytest.approx(2 / 3)
    assert compare_scores(expected, np.zeros((3, 1))) == (0, 0)


def test_the_parity_exchanges_are_of_many_lengths():
    exchanges = parity_exchanges()
    assert len(exchanges) >= 40
    assert len({len(exchange.answer) for exchange in exchanges}) > 20


def test_a_graph_that_disagrees_is_refused_unless_allowed(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(export_reward.__globals__["REQUIRED"], "int8", (1.1, 1.0))
    with pytest.raises(ExportError, match="int8 graph disagrees") as refused:
        export_reward(RewardRequest(trained, trained, "int8", False), tmp_path / "out")
    assert "--precision fp32" in refused.value.cure
    assert not any(tmp_path.iterdir())
    made = export_reward(RewardRequest(trained, trained, "int8", True), tmp_path / "out")
    assert made.parity.mismatch_allowed


def test_a_folder_of_the_users_is_not_replaced(trained, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ExportError, match="Expected a bundle"):
        export_reward(RewardRequest(trained, trained, "fp32", False), tmp_path)
    assert (tmp_path / "mine").exists()


def changed(bundle, **values):
    """Write the sidecar with other values; `model__pad` is the pad of the model."""
    raw = json.loads((bundle / REWARD_BUNDLE.name).read_text("utf-8"))
    for path, value in values.items():
        *parents, last = path.split("__")
        table = raw
        for parent in parents:
            table = table[parent]
        table[last] = value
    (bundle / REWARD_BUNDLE.name).write_text(json.dumps(raw), "utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 1}, "must have format 2"),
        ({"surprise": 1}, "unknown key surprise = 1"),
        ({"model__layout__surprise": 1}, "unknown key model.layout.surprise = 1"),
        ({"model__pad": "0"}, "model.pad must be a whole number, at least 0, found '0'"),
        ({"model__pad": -1}, "model.pad must be a whole number, at least 0, found -1"),
        ({"model__parts": []}, "model.parts must be a list that is not empty"),
        ({"model__parts": ["good", "good"]}, "parts must be unique"),
        ({"weights": {"good": 1.0}}, "weights must be those of good, kind, found good"),
        (
            {"weights": {"good": 1.0, "kind": float("nan")}},
            "weight of kind must be a finite number",
        ),
        ({"model__graph": "../x.onnx"}, "no digest of"),
        ({"files": {"/etc/passwd": ""}}, "outside the bundle"),
        (
            {"model__layout__answer_tokens": 0},
            "model.layout.answer_tokens must be a whole number, at least 1",
        ),
    ],
)
def test_a_sidecar_that_is_not_understood_is_refused(bundle, values, message):
    changed(bundle, **values)
    with pytest.raises(BundleError, match=message) as caught:
        REWARD_BUNDLE.open(bundle)
    assert "alignpro-lite export reward" in caught.value.cure


def test_altered_missing_and_foreign_files_are_refused(bundle, tmp_path):
    model = REWARD_BUNDLE.open(bundle).model
    (bundle / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        REWARD_BUNDLE.open(bundle)
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        OnnxScorer(bundle, model, 1)
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="not a tokenizer"):
        OnnxScorer(bundle, model, 1)
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx of the bundle is missing"):
        REWARD_BUNDLE.open(bundle)
    with pytest.raises(BundleError, match=f"folder with a {REWARD_BUNDLE.name}"):
        REWARD_BUNDLE.open(tmp_path)


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A cache and a models.toml with a recipe for the tiny reward."""
    (tmp_path / "models.toml").write_text(
        f"""
        [reward.tiny-bert]
        source = "file:{trained}"
        [reward.tiny]
        base = "tiny-bert"
        adapter = "file:{trained}"
        precision = "fp32"
        """
    )
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(tmp_path / "models.toml"))
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_command_line_builds_a_recipe_and_exports_a_folder(place, trained, capsys):
    assert exit_code_of(["models", "path", "reward/tiny"]) == 1
    assert "alignpro-lite models pull reward/tiny" in capsys.readouterr().err
    assert exit_code_of(["export", "bundle", "reward/tiny"]) == 0
    built = Path(capsys.readouterr().out.strip())
    assert built.parent == place / "cache/rewards"
    assert built.name.startswith("tiny-"), "another adapter has to be built anew"
    assert exit_code_of(["models", "verify", "reward/tiny"]) == 0
    assert exit_code_of(["export", "bundle", "reward/tiny-bert"]) == 1
    out = str(place / "out")
    assert exit_code_of(["export", "reward", str(trained), out, "--precision", "fp32"]) == 0
    assert REWARD_BUNDLE.open(place / "out").model.precision == "fp32"


def test_a_published_classifier_is_scored_as_a_pair(tmp_path):
    folder = write_bert(tmp_path / "published", BertForSequenceClassification)
    with pytest.raises(InputError, match="has 2 outputs"):
        HfScorer(folder, ("one",))
    scorer = HfScorer(folder, ("good", "kind"))
    scores = scorer.score(TALK)
    assert np.isfinite(scores).all()  # the long one is truncated
    plain = [Exchange("Why is the sky blue?", "It is."), Exchange("Say [SEP]", "no")]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    for exchange, scores in zip(plain, scorer.score(plain), strict=True):
        pair = tokenizer(
            exchange.prompt, exchange.answer, split_special_tokens=True, return_tensors="pt"
        )
        with torch.no_grad():
            np.testing.assert_allclose(scores, model(**pair).logits[0].numpy(), atol=1e-5)


def test_a_published_decoder_is_scored_as_a_conversation(tmp_path):
    from transformers import AutoModelForSequenceClassification

    folder = write_model(tmp_path / "m", configurations()["llama"])
    with pytest.raises(ModelFileError, match="tensors of a sequence classifier"):
        HfScorer(folder, ("good",))
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.save_pretrained(folder)
    scorer = HfScorer(folder, ("good",))
    ids = scorer._conversation(Exchange("a<|im_end|>", "b")).ids
    assert scorer._tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False) == (
        "<|im_start|>user\na<|im_end|><|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    )
    assert ids.count(2) == 2  # the template's own two, not the user's
    scores = scorer.score([TALK[0], Exchange("x" * 2000, "y")])
    assert list(np.isnan(scores[:, 0])) == [False, True]


def test_a_classifier_without_safe_weights_is_refused(tmp_path):
    with pytest.raises(ExportError):
        HfScorer(TINY_TARGET.parent, ("good",))


def test_the_card_of_an_adapter_decides_how_the_bundle_is_asked(tmp_path):
    base = write_model(tmp_path / "base", configurations()["llama"])
    adapter = write_adapter(tmp_path / "adapter", base)
    card = PrompterCard(
        targets=NO_TARGET,
        base="tiny",
        reference_rank=0,
        template=REWRITE,
        strength=0.2,
        reward="default",
        sampling=Sampling(temperature=0.9),
        max_tokens=33,
        metrics={"reward": 1.5},
    )
    write_record(adapter / PROMPTER_CARD, card)

    def request(mode):
        return BundleRequest(base, "tiny", adapter, mode, "fp32", "cpu", allow_mismatch=False)

    with pytest.raises(ExportError, match="trained to rewrite"):
        export_bundle(request("augment"), tmp_path / "out")
    sidecar = export_bundle(request(None), tmp_path / "out").sidecar
    assert sidecar.template == REWRITE
    assert sidecar.sampling == card.sampling
    assert sidecar.max_tokens == 33
    assert sidecar.eval_card == card.metrics
    assert (sidecar.provenance.strength, sidecar.provenance.reward) == (0.2, "default")
    assert sidecar.provenance.adapter == "adapter"
    (adapter / PROMPTER_CARD).write_text("{}")
    with pytest.raises(BundleError, match="lacks the key"):
        export_bundle(request(None), tmp_path / "out")


def test_a_reward_bundle_is_probed_before_it_is_loaded(bundle, tmp_path):
    """A tokenizer that panics in Rust ended whoever scored an answer with a traceback."""
    file = bundle / "tokenizer.json"
    table = json.loads(file.read_text("utf-8"))
    table["pre_tokenizer"] = {"type": "FixedLength", "length": 0}
    file.write_text(json.dumps(table), "utf-8")
    files = REWARD_BUNDLE.read(bundle).files
    changed(bundle, files={**files, file.name: hashlib.sha256(file.read_bytes()).hexdigest()})
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        open_reward([scorer_named(bundle)], ModelStore.open(tmp_path / "cache"), threads=1)
    scorer = OnnxScorer(bundle, REWARD_BUNDLE.read(bundle).model, threads=1)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        scorer.score(TALK)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_cannot_score(made):
    """onnxruntime's threads are not there in a fork, which waited for them for ever."""
    scorer = OnnxScorer(made, REWARD_BUNDLE.read(made).model, threads=2)
    assert scorer.score(TALK).shape == (3, 2)
    forked = os.fork()
    if not forked:
        signal.alarm(20)
        try:
            scorer.score(TALK)
        except DeviceError:
            os._exit(10)
        os._exit(20)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 10
