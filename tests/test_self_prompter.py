"""`--prompter self` from end to end: names, plan, loading, commands and evaluations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from alignpro_lite import AlignedModel, DeviceRequest, Request, RhoStar, Sampling
from alignpro_lite.cli import exit_code_of
from alignpro_lite.decoding.probe import probe_model
from alignpro_lite.errors import BundleError, InputError, ModelFileError
from alignpro_lite.eval.evaluate import evaluate
from alignpro_lite.experiment.sections import EndpointSection
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import LlamaDevices
from alignpro_lite.hardware.memory import TargetNeeds
from alignpro_lite.hardware.plan import BASE_CONTEXT
from alignpro_lite.loading import plan_models
from alignpro_lite.prompter.card import MAX_TOKENS
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.self_prompter import SelfName, self_name
from tests.eval.test_run import NONE, config_of, places_in, silent
from tests.support import TINY_TARGET, lora
from tests.support.scripted_models import PROMPT as FAKE_PROMPT
from tests.support.scripted_models import FakePrompter, drawn, rewarded

PROMPT = "Explain why the sky is blue."
ON_CPU = DeviceRequest("cpu")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return lora.write_lora(tmp_path_factory.mktemp("lora") / "a.gguf", lora.factors())


@pytest.fixture
def store(tmp_path):
    return ModelStore.open(tmp_path / "cache")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("self", SelfName(None, None)),
        ("self:augment", SelfName("augment", None)),
        ("self:rewrite", SelfName("rewrite", None)),
        ("self+a+b.gguf", SelfName(None, Path("a+b.gguf"))),
        ("self:rewrite+a.gguf", SelfName("rewrite", Path("a.gguf"))),
        ("selfish", None),
        ("./self", None),
        ("default", None),
        (Path("self.gguf"), None),
    ],
)
def test_names_that_begin_with_self(written, meant):
    assert self_name(written) == meant


@pytest.mark.parametrize("written", ["self:", "self:hint", "self+", "self:rewrite+"])
def test_a_name_that_goes_on_otherwise_is_refused(written):
    with pytest.raises(InputError, match="self:rewrite or self"):
        self_name(written)


class TestPlan:
    def test_the_context_has_room_for_the_request_to_the_prompter(self, store):
        """One that was planned for the conversation alone held no template of 500 tokens."""
        alone = plan_models(TINY_TARGET, None, store, ON_CPU).plan
        asked = DeviceRequest("cpu", None, 512)
        shared = plan_models(TINY_TARGET, "self", store, asked)
        room = shared.prompter.own.context
        assert room > 500
        assert (shared.plan.context, shared.plan.longest) == (512 + room, 512 + room)
        assert alone.context == BASE_CONTEXT
        assert shared.plan.prompter_device is None
        assert shared.plan.on_cpu.prompter_bytes == 0

    def test_an_adapter_has_a_context_of_its_own_that_is_planned(self, store, adapter):
        planned = plan_models(TINY_TARGET, f"self+{adapter}", store, ON_CPU)
        needs = TargetNeeds(read_header(TINY_TARGET), LlamaDevices(("CPU",), ()), 256, 16)
        second = needs.in_ram(0, planned.prompter.context).allocated_bytes
        assert planned.plan.on_cpu.prompter_bytes == adapter.stat().st_size + second

    def test_nothing_is_said_of_a_prompter_for_another_target(self, store):
        notes = plan_models(TINY_TARGET, "self", store, ON_CPU).plan.notes
        assert not [note for note in notes if "prompter" in note]

    def test_a_preset_may_have_no_bundle(self, tmp_path):
        text = '[preset.default]\nbundle = "self:rewrite"\ntarget = "t"\n[target.t]\n'
        (tmp_path / "models.toml").write_text(f'{text}source = "file:{TINY_TARGET}"\n')
        known = load_files([tmp_path / "models.toml"])
        planned = plan_models(
            "default", "default", ModelStore(known, Cache(tmp_path / "cache")), ON_CPU
        )
        assert planned.prompter.own.profile.template.mode == "rewrite"
        assert [entry.key for entry in known.preset("default")] == ["target/t"]

    def test_an_adapter_that_does_not_fit_is_refused_before_anything_loads(self, store, tmp_path):
        parts = {"blk.7.attn_q.weight": lora.factors()[lora.WEIGHTS[0]]}
        path = lora.write_lora(tmp_path / "other.gguf", parts)
        with pytest.raises(BundleError, match=r"does not fit tiny\.gguf"):
            plan_models(TINY_TARGET, f"self+{path}", store, ON_CPU)
        with pytest.raises(ModelFileError, match="does not exist"):
            plan_models(TINY_TARGET, "self+missing.gguf", store, ON_CPU)


class TestProbe:
    def test_an_adapter_is_tried_in_a_child(self, store, adapter):
        probed = plan_models(TINY_TARGET, f"self+{adapter}", store, ON_CPU).probed_prompter
        assert probed is not None
        assert (probed.kind, probed.path) == ("adapter", adapter)
        assert probe_model(probed).error is None

    def test_one_that_llama_cpp_refuses_is_an_error_of_the_file(self, store, tmp_path):
        path = lora.write_lora(tmp_path / "none.gguf", {})
        probed = plan_models(TINY_TARGET, f"self+{path}", store, ON_CPU).probed_prompter
        path.write_bytes(b"GGUF")
        assert probed is not None
        error = probe_model(probed).error
        assert isinstance(error, ModelFileError)
        assert "cannot use the adapter" in error.problem


class TestRun:
    def test_it_rewrites_draws_and_answers(self, tmp_path):
        settings = RhoStar(samples=3, answers=2, strength=0.1, guard="off")
        request = Request(max_tokens=6, sampling=Sampling(seed=2), rho_star=settings)
        with AlignedModel.load(
            TINY_TARGET,
            "self",
            "tests.support.reward_functions:length",
            devices=ON_CPU,
            cache=tmp_path,
        ) as model:
            assert model.prompter.target is model.target
            first = model.run(PROMPT, request)
            assert first.choice.certificate.drawn == 3
            assert model.run(PROMPT, request).choice.sent == first.choice.sent
            assert len(model.rewrite(PROMPT, 2)) == 2

    def test_without_a_reward_its_implicit_reward_is_no_choice(self, tmp_path):
        request = Request(rho_star=RhoStar(samples=2))
        with (
            AlignedModel.load(TINY_TARGET, "self", devices=ON_CPU, cache=tmp_path) as model,
            pytest.raises(InputError, match="that was trained by one"),
        ):
            model.run(PROMPT, request)

    def test_an_adapter_gives_an_implicit_reward(self, tmp_path, adapter):
        own = f"self+{adapter}"
        request = Request(rho_star=RhoStar(samples=3), max_tokens=4)
        with AlignedModel.load(TINY_TARGET, own, devices=ON_CPU, cache=tmp_path) as model:
            assert model.run(PROMPT, request).choice.certificate.drawn == 3

    def test_onnxruntime_is_not_even_imported(self, tmp_path):
        program = (
            "import sys; from alignpro_lite import AlignedModel, DeviceRequest\n"
            f"with AlignedModel.load({str(TINY_TARGET)!r}, 'self', devices=DeviceRequest('cpu'), "
            f"cache={str(tmp_path)!r}) as model: model.rewrite('Hello', 1)\n"
            "assert 'onnxruntime' not in sys.modules and 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_an_untrained_prompter_is_not_asked_for_log_rho_sft_again(self):
        """It has said it with each rewrite; the target would compute all of them twice."""
        prompter = FakePrompter([f"{FAKE_PROMPT} Be brief."] * 2, adapter=None)
        choice = drawn(prompter, rewarded(len), samples=2)
        assert choice.certificate.scored == 2
        assert prompter.scored == 0


class TestCommands:
    def test_rewrite_loads_the_target_that_is_named(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path))
        command = ["rewrite", PROMPT, "--prompter", "self", "--target", str(TINY_TARGET)]
        assert exit_code_of([*command, "--json", "--count", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(json.loads(line)["text"].startswith(PROMPT) for line in lines)
        assert len(lines) == 2

    def test_doctor_tries_the_target_as_its_prompter(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path))
        command = ["doctor", "--prompter", "self", "--target", str(TINY_TARGET)]
        assert exit_code_of([*command, "--device", "cpu"]) == 0
        report = capsys.readouterr().out
        assert "the target is its own prompter" in report
        assert "prompter  works on cpu" in report

    def test_a_wrong_name_is_one_line(self, capsys):
        assert exit_code_of(["run", "hi", "--prompter", "self:hint"]) == 1
        assert "Traceback" not in capsys.readouterr().err


class TestEvaluation:
    SYSTEMS = (
        NONE
        + '[[system]]\nname = "hinted"\nkind = "prompter"\nbundle = "{own}"\ndata = ["lakes"]\n'
        + '[[system]]\nname = "plain"\nkind = "reference"\nbundle = "{own}"\ndata = ["lakes"]\n'
        + '[[system]]\nname = "drawn"\nkind = "rho_star"\nbundle = "{own}"\ndata = ["lakes"]\n'
        + "samples = 2\nstrength = 0.1\n"
    )

    @pytest.mark.parametrize("with_adapter", [False, True], ids=["base", "lora"])
    def test_systems_of_the_targets_own_weights(self, tmp_path, monkeypatch, adapter, with_adapter):
        monkeypatch.setitem(MAX_TOKENS, "rewrite", 8)
        places = places_in(tmp_path, monkeypatch)
        own = f"self:rewrite+{adapter}" if with_adapter else "self:rewrite"
        systems = self.SYSTEMS.replace("{own}", own)
        summary = evaluate(config_of(places, systems), places, silent)
        assert {"none", "hinted", "plain", "drawn"} <= set(summary.systems)

    def test_a_target_behind_an_endpoint_is_refused(self, tmp_path, monkeypatch):
        places = places_in(tmp_path, monkeypatch)
        systems = NONE + '[[system]]\nname = "hinted"\nkind = "prompter"\nbundle = "self"\n'
        endpoint = EndpointSection(url="http://127.0.0.1:9/v1", model="m")
        config = structs.replace(config_of(places, systems), target=endpoint)
        with pytest.raises(InputError, match="its exact log-probabilities, needs"):
            evaluate(config, places, silent)
