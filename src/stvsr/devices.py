"""The device a computation runs on: chosen by name, named for people, its memory."""

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
    """The device a name means to process `rank`; `auto` and `cuda` are its GPU, `auto` the CPU if none can be used.

    Raises:
        InvalidInput: there is no such device here, or it cannot be used.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        try:
            return chosen_device("cuda", rank)
        except InvalidInput as error:
            print(f"warning: {error}; the CPU is taken, which is slow", file=sys.stderr)
            return torch.device("cpu")
    try:
        if name == "cuda":
            name = f"cuda:{rank % max(1, torch.cuda.device_count())}"
        device = torch.device(name)
        # Not only made there: the device `meta` holds nothing, and this torch may have no kernels for an old GPU. And
        # scores are in float64, which Apple's GPUs do not have.
        torch.ones(1, device=device, dtype=torch.float64).add(1).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InvalidInput(
            f"device={name}: not usable here ({one_line(error)[:90]}); expected auto, cpu, or the name of a GPU"
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """For people: which GPU, or which CPU and how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_told_by_proc('cpuinfo', 'model name') or 'CPU'}, {threads} thread{'' if threads == 1 else 's'}"


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster there than float32; a device without instructions for it only emulates them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def refuses_bf16(device: torch.device) -> bool:
    """Whether it is a GPU without bfloat16: cuDNN may refuse it there, in the words of a lack of memory."""
    return device.type == "cuda" and not has_bf16(device)


def _told_by_proc(name: str, key: str) -> str | None:
    """The value of the first line in a file of `/proc` that begins with `key`; None where the system has no such."""
    file = Path("/proc", name)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def peak_memory(device: torch.device) -> float:
    """Most memory held so far, MiB: allocated on a GPU, resident for the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if (peak := _told_by_proc("self/status", "VmHWM:")) is not None:
        return int(peak.split()[0]) / 1024
    # Of a child process it may be the peak of its parent, so only where nothing else is known.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MIB if sys.platform == "darwin" else used / 1024


def forget_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory` begin anew, with what is held now, where the system can do that: on a GPU, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        # 5 is the peak of resident memory, proc(5).
        Path("/proc/self/clear_refs").write_text("5")


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def used_memory() -> int:
    """Bytes of memory that this process holds now, or has held where only that is known."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return round(peak_memory(torch.device("cpu")) * MIB)


def available_memory(device: torch.device) -> int:
    """Bytes of memory that can be had: of the GPU, or of the machine without swapping, within a container's limit."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    available = _told_by_proc("meminfo", "MemAvailable:")
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    of_machine = half if available is None else int(available.split()[0]) * 1024
    return min([of_machine, *within_limits()])


def check_answering(device: torch.device) -> None:
    """Refuses a GPU on which a kernel has failed: it does nothing more for this process.

    Raises:
        UserError: says how to start again.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise UserError(
            f"a kernel failed on {device_name(device)} ({one_line(error)[:100]}), which can do nothing more for this "
            "process; start it again, and if that fails too on another device, or with other kernels: "
            "deformable=torchvision, and in training cuda_graphs=false; stvsr-upscale --precision float32, to another "
            "output"
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether something was raised for want of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Those have no class of their own: a CPU's allocator; Triton; cuDNN, which tries algorithm after algorithm.
    signs = ("can't allocate memory", "out of memory", "unable to find an engine")
    return any(sign in str(error).lower() for sign in signs)
