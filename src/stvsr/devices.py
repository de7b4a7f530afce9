"""The device a computation runs on: choosing it, describing it to people, measuring its memory."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from stvsr.cgroups import within_limits
from stvsr.errors import InvalidInput, UserError, one_line

MIB = 2**20


def chosen_device(name: str, rank: int = 0) -> torch.device:
    """The device for process `rank`: `cuda` is its GPU, `auto` the same, or the CPU if no GPU can be used.

    Raises:
        InvalidInput: there is no such device here, or it cannot be used.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        try:
            return chosen_device("cuda", rank)
        except InvalidInput as error:
            print(f"warning: {error}; using the CPU, which is slow", file=sys.stderr)
            return torch.device("cpu")
    try:
        if name == "cuda":
            name = f"cuda:{rank % max(1, torch.cuda.device_count())}"
        device = torch.device(name)
        # Computed with, too: the device `meta` holds no data, and torch may lack kernels for an old GPU. In float64, as
        # scores need it and Apple's GPUs lack it.
        torch.ones(1, device=device, dtype=torch.float64).add(1).cpu()
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise InvalidInput(
            f"device={name}: not usable here ({one_line(error)[:90]}); expected auto, cpu, or the name of a GPU"
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """For people: the GPU's model, or the CPU's and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_proc_value('cpuinfo', 'model name') or 'CPU'}, {threads} thread{'' if threads == 1 else 's'}"


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; otherwise it is emulated, and no faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def refuses_bf16(device: torch.device) -> bool:
    """Whether it is a GPU without bfloat16, where cuDNN may refuse it, with an error like that for lack of memory."""
    return device.type == "cuda" and not has_bf16(device)


def _proc_value(name: str, key: str) -> str | None:
    """The value on the first line that begins with `key` in a file of `/proc`; None if there is none."""
    file = Path("/proc", name)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def peak_memory(device: torch.device) -> float:
    """Peak memory so far, in MiB: allocated on a GPU, or resident in the whole process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if (peak := _proc_value("self/status", "VmHWM:")) is not None:
        return int(peak.split()[0]) / 1024
    # The last resort: in a child process it may be the parent's peak.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MIB if sys.platform == "darwin" else used / 1024


def forget_peak_memory(device: torch.device) -> None:
    """Resets `peak_memory` to what is held now, where possible: on a GPU, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        # 5 resets the peak resident size, see proc(5).
        Path("/proc/self/clear_refs").write_text("5")


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished its work, so that time can be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def used_memory() -> int:
    """Bytes of memory that this process holds now, or its peak where only that is known."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return round(peak_memory(torch.device("cpu")) * MIB)


def available_memory(device: torch.device) -> int:
    """Bytes of memory available: on the GPU, or on the machine without swapping and within a container's limit."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    available = _proc_value("meminfo", "MemAvailable:")
    half_of_total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    machine_memory = half_of_total if available is None else int(available.split()[0]) * 1024
    return min([machine_memory, *within_limits()])


def check_answering(device: torch.device) -> None:
    """Refuses a GPU on which a kernel has failed: this process cannot use it any more.

    Raises:
        UserError: says how to start again.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise UserError(
            f"a kernel failed on {device_name(device)} ({one_line(error)[:100]}), which this process can no longer "
            "use; start it again, and if it fails again, use another device or other kernels: deformable=torchvision, "
            "in training also cuda_graphs=false; for stvsr-upscale --precision float32, with another output"
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error was raised for lack of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Without an error class of their own: the CPU's allocator; Triton; cuDNN, after trying all its algorithms.
    signs = ("can't allocate memory", "out of memory", "unable to find an engine")
    return any(sign in str(error).lower() for sign in signs)
