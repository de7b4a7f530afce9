"""The device a computation runs on: chosen by name, named for people, its memory."""

import resource
import sys
from pathlib import Path

import torch

from stvsr.errors import InvalidInput

MIB = 2**20


def chosen_device(name: str, rank: int = 0) -> torch.device:
    """The device a name means to process `rank`; `auto` and `cuda` are its GPU, `auto` the CPU if there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if name == "cuda":
            name = f"cuda:{rank % torch.cuda.device_count()}"
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ZeroDivisionError):
        raise InvalidInput(
            f"device={name}: not usable here; expected auto, cpu, or the name of a GPU there is"
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """For people: which GPU, or which CPU and how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "CPU"


def peak_memory(device: torch.device) -> float:
    """Most memory held so far, MiB: allocated on a GPU, resident for the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MIB if sys.platform == "darwin" else used / 1024


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
