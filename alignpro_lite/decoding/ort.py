"""onnxruntime: opening a graph. The only file that imports it: on first use, its telemetry off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignpro_lite.decoding.cancellation import LoadWatch, Stop
from alignpro_lite.decoding.environment import native_settings
from alignpro_lite.decoding.exhaustion import exhausted
from alignpro_lite.errors import BundleError, DeviceError, MissingDependencyError, reason_of

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        with native_settings("onnxruntime"):
            import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"Prompters and exported rewards need onnxruntime, which does not load ({error}).",
            'Run `pip install "alignpro-lite[cpu]"`, or `pip install "alignpro-lite[cuda]"` '
            "for an NVIDIA GPU.",
        ) from error
    return onnxruntime


def supports_cuda() -> bool:
    """Whether the installed onnxruntime was built with CUDA; a session may still fail to use it."""
    return _CUDA in onnxruntime().get_available_providers()


def open_session(
    graph: Path,
    threads: int,
    *,
    gpu: int | None = None,
    spinning: bool = True,
    cure: str,
    watch: LoadWatch | None = None,
) -> Any:
    """Load a graph.

    Args:
        graph: The .onnx file.
        threads: CPU threads.
        gpu: Index of the NVIDIA GPU to run on, None for the CPU.
        spinning: Whether idle threads keep their cores busy while they wait for the next call.
        cure: What the user can do about a graph that cannot be loaded.
        watch: Told when it is loaded; onnxruntime does not say how far it is.

    Returns:
        The `InferenceSession`.

    Raises:
        BundleError: onnxruntime cannot read the graph.
        DeviceError: The GPU cannot be used, or there is not enough memory.
        MissingDependencyError: onnxruntime is not installed.
        CancelledError: The watcher has cancelled it.
    """
    watch = watch or LoadWatch()
    try:
        str(graph).encode()
    except UnicodeEncodeError as error:
        raise BundleError(
            f"onnxruntime opens only files with a path in UTF-8, found {str(graph)!a}.",
            "Rename its folder.",
        ) from error
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.log_severity_level = 4  # errors come as exceptions
    provider = _provider(runtime, gpu)
    stop = Stop(lambda: options.set_load_cancellation_flag(True))
    try:
        with native_settings(), watch.cancellation.stops(stop):
            session = runtime.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        watch.cancellation.check()
        if lack := exhausted(graph, str(error)):
            raise lack from error
        raise BundleError(f"onnxruntime cannot load {graph} ({reason_of(error)}).", cure) from error
    # Without its libraries, onnxruntime makes a CPU session and says nothing.
    if session.get_providers()[0] != provider[0]:
        raise _no_cuda(f"onnxruntime fell back to {session.get_providers()[0]}")
    watch.cancellation.check()
    watch.report(1.0)
    return session


def _provider(runtime: Any, gpu: int | None) -> tuple[str, dict[str, int]]:
    if gpu is None:
        return _CPU, {}
    runtime.preload_dlls()
    if not supports_cuda():
        raise _no_cuda("this build of onnxruntime has none")
    return _CUDA, {"device_id": gpu}


def _no_cuda(found: str) -> DeviceError:
    return DeviceError(
        f"The prompter was to run on CUDA, but {found}.",
        'Run `pip install "alignpro-lite[cuda]"`, or pass --device cpu.',
    )
