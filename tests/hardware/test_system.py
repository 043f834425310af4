"""GPUs, memory and cores: reported by fakes, and once by this machine."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignpro_lite.hardware import system as system_module
from alignpro_lite.hardware.system import (
    Gpu,
    Ram,
    find_gpus,
    find_hardware,
    find_other_gpus,
    find_ram,
    usable_cores,
)

GIB = 1 << 30
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux pseudo files")


class FakeNvml:
    """NVML with two GPUs; the second does not report its memory if `mute`."""

    def __init__(self, *, status: int = 0, mute: bool = False) -> None:
        self.status = status
        self.mute = mute
        self.is_open = False

    def nvmlInit_v2(self) -> int:  # noqa: N802
        self.is_open = self.status == 0
        return self.status

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.is_open = False
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 1000 + index.value
        return 0 if index.value < 2 else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 1001
        return 0 if uuid == b"GPU-second" else 6

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:  # noqa: N802
        number = (handle.value or 0) - 1000
        if number == 1 and self.mute:
            return 3
        memory._obj[:2] = (number + 1) * 8 * GIB, (number + 1) * 7 * GIB
        return 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, name: Any, size: Any) -> int:  # noqa: N802
        name.value = f"GPU {(handle.value or 0) - 1000}".encode()
        return 0


FIRST = Gpu(0, "GPU 0", 8 * GIB, 7 * GIB)
SECOND = Gpu(1, "GPU 1", 16 * GIB, 14 * GIB)
SECOND_ALONE = Gpu(0, "GPU 1", 16 * GIB, 14 * GIB)


def gpus_of(nvml: FakeNvml | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Gpu, ...]:
    monkeypatch.setattr(system_module, "_load_nvml", lambda: nvml)
    found = find_gpus()
    assert nvml is None or not nvml.is_open
    return found


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, (FIRST, SECOND)),
        ("0,1", (FIRST, SECOND)),
        ("1", (SECOND_ALONE,)),
        ("GPU-second", (SECOND_ALONE,)),
        ("0, 7, 1", (FIRST,)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_gpus_are_those_that_cuda_shows(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: tuple[Gpu, ...]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(FakeNvml(), monkeypatch) == expected


def test_no_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of(None, monkeypatch) == ()
    assert gpus_of(FakeNvml(status=9), monkeypatch) == ()


def test_a_gpu_that_does_not_report_its_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of(FakeNvml(mute=True), monkeypatch) == (FIRST,)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU")
def test_real_gpus_agree_with_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [gpu.name for gpu in find_gpus()] == names


def put(system: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return system


MEMINFO = {"proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n"}


@linux_only
def test_ram_counts_what_is_available_and_not_what_is_free(tmp_path: Path) -> None:
    assert find_ram(put(tmp_path, MEMINFO)) == Ram(16 * GIB, 8 * GIB)


@linux_only
@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/app/worker\n",
            "sys/fs/cgroup/app/worker/memory.max": "max\n",
            "sys/fs/cgroup/app/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/app/memory.stat": f"anon {GIB}\nfile {2 * GIB}\n",
        },
        {
            "proc/self/cgroup": "4:memory:/app\n1:name=systemd:/\n0::/\n",
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/app/memory.stat": f"cache 1\ntotal_rss {GIB}\n",
        },
    ],
    ids=["cgroup 2", "cgroup 1"],
)
def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, files: dict[str, str]) -> None:
    assert find_ram(put(tmp_path, MEMINFO | files)) == Ram(4 * GIB, 3 * GIB)


@linux_only
def test_gpus_of_other_vendors_are_those_that_the_kernel_shows(tmp_path: Path) -> None:
    vendors = {"card0": "0x8086", "card1": "0x1002", "card2": "0x1002", "card3": "0x1a03"}
    files = {f"sys/class/drm/{name}/device/vendor": it + "\n" for name, it in vendors.items()}
    assert find_other_gpus(put(tmp_path, files)) == ("AMD", "Intel")
    assert find_other_gpus(tmp_path / "nothing") == ()


def test_a_mac_has_a_gpu_if_its_processor_is_apples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert find_other_gpus() == ("Apple",)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert find_other_gpus() == ()


def topology(siblings: list[str]) -> dict[str, str]:
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {folder.format(cpu): text + "\n" for cpu, text in enumerate(siblings)}


@linux_only
def test_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = put(tmp_path, topology(["0,2", "1,3", "0,2", "1,3"]))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert usable_cores(system) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    assert usable_cores(system) == 1


@linux_only
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_a_processor_quota_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores(put(tmp_path, files)) == expected


def test_the_hardware_of_this_machine_is_found() -> None:
    found = find_hardware()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 0 < found.ram.available_bytes <= found.ram.total_bytes


def test_planning_imports_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys, alignpro_lite.hardware.planner\n"
        "heavy = {'numpy', 'torch', 'onnxruntime', 'llama_cpp'} & set(sys.modules)\n"
        "sys.exit(len(heavy))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
