"""Loading: what it reports, and how it is cancelled. Nothing here is timed: the steps are held."""

from __future__ import annotations

import _thread
import threading
from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, Cancellation, CancelledError, DeviceRequest, Progress
from alignpro_lite.decoding import ort
from alignpro_lite.decoding.cancellation import LoadWatch, Stop, until_cancelled
from alignpro_lite.decoding.child import run_child
from alignpro_lite.decoding.llamacpp import LlamaModel
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.target.llama import TargetSettings, open_model
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_stepper import PATIENCE

SETTINGS = TargetSettings(context=64, sequences=1, n_gpu_layers=0, gpu=None, threads=1)
ON_CPU = DeviceRequest("cpu")


def load(**options) -> AlignedModel:
    return AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=ON_CPU, **options)


def loading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loading"]


def test_progress_names_the_stage_and_counts_bytes_up_to_all():
    told: list[Progress] = []
    load(on_progress=told.append).close()
    assert [step.stage for step in told][:2] == ["trying", "loading"]
    loads = [step for step in told if step.stage == "loading"]
    weights = sum(tensor.n_bytes for tensor in read_header(TINY_TARGET).tensors)
    assert {step.total for step in loads} == {weights + open_bundle(TINY_BUNDLE).n_bytes}
    done = [step.done for step in loads]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, loads[0].total)
    assert len(set(done)) > 3


def test_what_the_listener_raises_ends_the_loading(monkeypatch):
    closed = []
    monkeypatch.setattr("alignpro_lite.opening.LlamaTarget.close", closed.append)

    def listen(progress: Progress) -> None:
        if progress.done:
            raise KeyError("the window is gone")

    with pytest.raises(KeyError, match="the window is gone"):
        load(on_progress=listen)


@pytest.mark.parametrize("stage", ["trying", "loading"])
def test_a_load_is_cancelled_from_another_thread_at_every_stage(stage):
    cancellation = Cancellation()

    def listen(progress: Progress) -> None:
        if progress.stage == stage:
            canceller = threading.Thread(target=cancellation.cancel)
            canceller.start()
            canceller.join(PATIENCE)

    with pytest.raises(CancelledError, match="loading was cancelled"):
        load(on_progress=listen, cancellation=cancellation)
    for thread in loading_threads():
        thread.join(PATIENCE)
    assert not loading_threads()


def test_a_load_that_was_cancelled_before_loads_nothing(monkeypatch):
    cancellation = Cancellation()
    cancellation.cancel()
    told: list[Progress] = []
    with pytest.raises(CancelledError):
        load(on_progress=told.append, cancellation=cancellation)
    assert told == []


def test_a_caller_who_cancels_does_not_wait_for_work_that_cannot_be_stopped():
    """The work is held until the caller has gone, and what it makes then is closed."""
    gone, discarded = threading.Event(), []
    begun = threading.Event()
    cancellation = Cancellation()

    def work() -> str:
        begun.set()
        assert gone.wait(PATIENCE)
        return "a model"

    def cancel() -> None:
        assert begun.wait(PATIENCE)
        cancellation.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(CancelledError):
        until_cancelled(work, cancellation, discarded.append)
    (thread,) = loading_threads()
    assert discarded == []
    gone.set()
    thread.join(PATIENCE)
    assert discarded == ["a model"]


def test_ctrl_c_lets_the_caller_go_and_stops_the_work():
    cancellation = Cancellation()
    stopped = threading.Event()

    def work() -> None:
        with cancellation.stops(Stop(stopped.set)):
            _thread.interrupt_main()
            assert stopped.wait(PATIENCE)
        cancellation.check()

    with pytest.raises(KeyboardInterrupt):
        until_cancelled(work, cancellation, lambda _: None)
    assert cancellation.asked
    for thread in loading_threads():
        thread.join(PATIENCE)
    assert stopped.is_set()


def test_an_error_of_the_work_reaches_the_caller_and_cancels_nobody():
    cancellation = Cancellation()

    def work() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        until_cancelled(work, cancellation, lambda _: None)
    assert not cancellation.asked


class TestWatched:
    """The native loaders one by one."""

    def test_llama_cpp_stops_at_the_next_tensor(self):
        cancellation = Cancellation()
        shares: list[float] = []

        def report(share: float) -> None:
            shares.append(share)
            if len(shares) == 3:
                cancellation.cancel()

        with pytest.raises(CancelledError):
            open_model(TINY_TARGET, SETTINGS, LoadWatch(cancellation, report))
        assert len(shares) == 3

    def test_what_a_watcher_raises_passes_around_c(self, capfd):
        def report(share: float) -> None:
            raise KeyError("odd")

        with pytest.raises(KeyError):
            open_model(TINY_TARGET, SETTINGS, LoadWatch(report=report))
        assert capfd.readouterr() == ("", "")
        assert isinstance(open_model(TINY_TARGET, SETTINGS), LlamaModel)

    def test_onnxruntime_is_told_to_stop(self, monkeypatch):
        """Its flag is set while the session is made; the real one then stops within a node."""
        cancellation, runtime = Cancellation(), ort.onnxruntime()
        make = runtime.InferenceSession

        def session(*arguments, **options):
            cancellation.cancel()
            return make(*arguments, **options)

        monkeypatch.setattr(runtime, "InferenceSession", session)
        graph = TINY_BUNDLE / "model.onnx"
        with pytest.raises(CancelledError):
            ort.open_session(graph, 1, cure="", watch=LoadWatch(cancellation))

    def test_a_session_that_was_cancelled_before_is_not_made(self, monkeypatch):
        cancellation = Cancellation()
        cancellation.cancel()
        monkeypatch.setattr(ort.onnxruntime(), "InferenceSession", None)
        with pytest.raises(CancelledError):
            ort.open_session(Path("none.onnx"), 1, cure="", watch=LoadWatch(cancellation))

    def test_a_child_is_killed(self, tmp_path):
        script = tmp_path / "sleeps.py"
        script.write_text("import time\ntime.sleep(60)\n")
        cancellation = Cancellation()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                run_child(script, [], 60, {}, cancellation)
            except CancelledError as error:
                errors.append(error)

        runner = threading.Thread(target=run)
        runner.start()
        cancellation.cancel()
        runner.join(PATIENCE)
        assert not runner.is_alive()
        assert len(errors) == 1
