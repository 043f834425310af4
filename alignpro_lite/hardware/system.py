"""What hardware there is: GPUs, memory and cores.

Neither an engine nor torch is needed: NVML reports NVIDIA's GPUs, for the prompter's CUDA session;
the operating system reports the rest. The GPUs of the target are those that llama.cpp finds.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VENDORS = {"0x1002": "AMD", "0x8086": "Intel"}
"""Numbers of the PCI vendors whose GPUs the kernel of Linux lists; NVML lists NVIDIA's."""


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU that this process may use.

    Attributes:
        index: Its number for CUDA under `CUDA_DEVICE_ORDER=PCI_BUS_ID`, counted among the devices
            that `CUDA_VISIBLE_DEVICES` shows.
        name: Its name in the driver.
        total_bytes: Its memory.
        free_bytes: Its memory that no process uses.
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Ram:
    """Memory of the machine, or of its container if that has less.

    Attributes:
        total_bytes: All of it.
        available_bytes: What can be allocated without swapping.
    """

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Hardware:
    """The hardware that a plan is made for.

    Attributes:
        gpus: NVIDIA's GPUs in the order of their index.
        ram: Main memory.
        cores: Physical cores that this process may keep busy.
        other_gpus: Vendors of other GPUs: `AMD`, `Intel`, `Apple`.
    """

    gpus: tuple[Gpu, ...]
    ram: Ram
    cores: int
    other_gpus: tuple[str, ...] = ()


def trim_heap() -> None:
    """Make the C library return freed memory to the system.

    glibc keeps what a closed model has freed, up to a whole model for each arena. Other C libraries
    have no such call and do not need it.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def find_hardware() -> Hardware:
    """Find GPUs, memory and cores; takes milliseconds and starts no engine."""
    return Hardware(find_gpus(), find_ram(), usable_cores(), find_other_gpus())


def find_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that CUDA would show to this process, as NVML reports them.

    Without the driver's library there are none. A device that does not report its memory is left
    out.
    """
    nvml = _load_nvml()
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return ()
    try:
        handles = _visible_handles(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        gpus = (_describe_gpu(nvml, index, handle) for index, handle in enumerate(handles))
        return tuple(gpu for gpu in gpus if gpu is not None)
    finally:
        nvml.nvmlShutdown()


def _load_nvml() -> Any:
    """NVML, or None without an NVIDIA driver. It has no types because it is a C library."""
    try:
        return ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None


def _visible_handles(nvml: Any, visible: str | None) -> list[ctypes.c_void_p]:
    """Handles of the devices; as in CUDA, the list ends at the first name that does not exist."""
    if visible is None:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        names = [str(index) for index in range(count.value)]
    else:
        names = [name.strip() for name in visible.split(",")]
    handles = []
    for name in names:
        handle = ctypes.c_void_p()
        if name.isdecimal():
            status = nvml.nvmlDeviceGetHandleByIndex_v2(
                ctypes.c_uint(int(name)), ctypes.byref(handle)
            )
        else:
            status = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if status != 0:
            break
        handles.append(handle)
    return handles


def _describe_gpu(nvml: Any, index: int, handle: ctypes.c_void_p) -> Gpu | None:
    name, memory = ctypes.create_string_buffer(96), (ctypes.c_ulonglong * 3)()
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name)))
    total, free, _used = memory
    return Gpu(index, name.value.decode("utf-8", "replace"), total, free)


def find_other_gpus(system: Path = Path("/")) -> tuple[str, ...]:
    """Vendors of the GPUs that are not NVIDIA's, each once; none on Windows.

    They tell a user whose llama.cpp finds no GPU that there is one.

    Args:
        system: The folder with the pseudo file systems of Linux.
    """
    if sys.platform == "darwin":
        return ("Apple",) if platform.machine() == "arm64" else ()
    cards = (system / "sys/class/drm").glob("card*/device/vendor")
    numbers = {number for card in cards for number in _words(card)}
    return tuple(sorted(_VENDORS[number] for number in numbers & _VENDORS.keys()))


def find_ram(system: Path = Path("/")) -> Ram:
    """The memory of the machine; on Linux, within the limits of the container.

    Args:
        system: The folder with the pseudo file systems of Linux.
    """
    if sys.platform == "win32":
        # MEMORYSTATUSEX: its own length and the load share the first of eight 64-bit numbers.
        status = (ctypes.c_ulonglong * 8)(64)
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return Ram(total_bytes=status[1], available_bytes=status[2])
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize")
        return Ram(total, total * _sysctl("kern.memorystatus_level") // 100)
    kibibytes = _named_numbers((system / "proc/meminfo").read_text().replace(":", ""))
    ram = Ram(kibibytes["MemTotal"] << 10, kibibytes["MemAvailable"] << 10)
    for folder in _cgroup_folders("memory", system):
        ram = _limited(ram, folder)
    return ram


def usable_cores(system: Path = Path("/")) -> int:
    """How many threads can run without sharing a core.

    On Linux these are the physical cores that the process may run on, within the processor quota of
    its container; on macOS the fast cores; on Windows the logical ones, because telling cores from
    threads there takes more than one call.

    Args:
        system: The folder with the pseudo file systems of Linux.
    """
    if sys.platform == "linux":
        cores = _physical_cores(os.sched_getaffinity(0), system)
        return max(1, int(min(cores, _processor_quota(system))))
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or 1
    return os.cpu_count() or 1


def _sysctl(name: str) -> int:
    """A number of the macOS kernel, 0 if it has none of this name."""
    value, size = ctypes.c_uint64(), ctypes.c_size_t(8)
    libc = ctypes.CDLL(None)
    libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return value.value


def _physical_cores(cpus: Iterable[int], system: Path) -> int:
    """How many cores some logical processors are on; siblings share a core."""
    folder = system / "sys/devices/system/cpu"
    siblings = {
        tuple(_words(folder / f"cpu{cpu}/topology/thread_siblings_list") or [str(cpu)])
        for cpu in cpus
    }
    return len(siblings)


def _processor_quota(system: Path) -> float:
    """How many processors the control groups grant, infinity without a limit."""
    quotas = [math.inf]
    for folder in _cgroup_folders("cpu", system):
        limits = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(limits) == 2 and limits[0] not in ("max", "-1"):
            quotas.append(int(limits[0]) / int(limits[1]))
    return min(quotas)


def _limited(ram: Ram, cgroup: Path) -> Ram:
    """Memory within the limit of a control group; cached pages of files do not count as used."""
    limit = _words(cgroup / "memory.max") or _words(cgroup / "memory.limit_in_bytes")
    if not limit or limit[0] == "max":
        return ram
    used = _named_numbers("\n".join(_lines(cgroup / "memory.stat")))
    left = int(limit[0]) - used.get("anon", used.get("total_rss", 0))
    return Ram(min(ram.total_bytes, int(limit[0])), min(ram.available_bytes, max(0, left)))


def _cgroup_folders(controller: str, system: Path) -> Iterator[Path]:
    """The folders of the control groups that limit this process, in either version of them."""
    root = system / "sys/fs/cgroup"
    for line in _lines(system / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / path.lstrip("/")
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(base))


def _named_numbers(text: str) -> dict[str, int]:
    """Numbers by name from lines such as `MemTotal 16384 kB`."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows}


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
