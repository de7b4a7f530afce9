"""Devices are chosen by name, and checked for what they can do before it is used."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stvsr.devices import (
    available_memory,
    check_answering,
    chosen_device,
    device_name,
    forget_peak_memory,
    has_bf16,
    peak_memory,
    used_memory,
)
from stvsr.errors import InvalidInput, UserError

CPU = torch.device("cpu")


def test_auto_is_a_gpu_if_there_is_one_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == CPU
    assert not capsys.readouterr().err
    # cuda:98 does not exist; the message names the resolved device.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 99)
    with pytest.raises(InvalidInput, match=r"device=cuda:98: not usable here \(.*\); expected auto, cpu"):
        chosen_device("cuda", rank=98)
    assert chosen_device("auto", rank=98) == CPU
    assert "warning: device=cuda:98: not usable here" in capsys.readouterr().err


def test_without_a_driver_cuda_is_refused_in_torchs_words() -> None:
    with pytest.raises(InvalidInput, match=r"device=cuda:0: not usable here \((?!integer)"):
        chosen_device("cuda")


def test_a_gpu_without_double_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's, for which torch raises a TypeError."""

    def ones(*size: int, **options: object) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(InvalidInput, match=r"device=mps: not usable here \(Cannot convert"):
        chosen_device("mps")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", "hpu", ""])
def test_a_device_that_is_not_there_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"device={name}: not usable here"):
        chosen_device(name)


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_older_than_ampere_only_emulates_bf16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16(torch.device("cuda")) is fast


@pytest.mark.parametrize("instructions", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_a_cpu_has_bf16_with_either_set_of_instructions(monkeypatch: pytest.MonkeyPatch, instructions: str) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not has_bf16(CPU)
    monkeypatch.setattr(torch.cpu, instructions, lambda: True)
    assert has_bf16(CPU)


@pytest.mark.parametrize(("threads", "says"), [(1, ", 1 thread"), (2, ", 2 threads")])
def test_a_cpu_is_named_with_its_threads(monkeypatch: pytest.MonkeyPatch, threads: int, says: str) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(CPU).endswith(says)


def test_memory_is_told_in_the_units_it_is_said_to_be_in() -> None:
    before = used_memory()
    # New pages: an allocator might reuse memory that the process already holds.
    held = mmap.mmap(-1, 2**28, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"1" * 2**28)
    assert 0.9 * 2**28 < used_memory() - before < 1.5 * 2**28, "bytes"
    assert peak_memory(CPU) >= 0.9 * used_memory() / 2**20, "MiB"
    assert 2**26 < available_memory(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "bytes"
    held.close()


def test_a_peak_that_is_forgotten_begins_with_what_is_held() -> None:
    held = mmap.mmap(-1, 2**28, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"1" * 2**28)
    before = peak_memory(CPU)
    held.close()
    forget_peak_memory(CPU)
    assert peak_memory(CPU) < before - 200


def test_a_system_that_does_not_tell_the_peak_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name:\tpython\nVmRSS:\t1 kB\n")
    assert peak_memory(CPU) > 50


def test_the_peak_of_a_process_is_its_own_and_not_that_of_its_parent() -> None:
    held = bytearray(b"1") * 2**30
    command = [sys.executable, "-c", "import torch, stvsr.devices as d; print(d.peak_memory(torch.device('cpu')))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert peak_memory(CPU) > len(held) / 2**20
    assert 50 < float(done.stdout) < 1000


def test_a_gpu_on_which_a_kernel_failed_is_given_up_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later work there would fail with a misleading message, such as lack of memory."""

    def failed(device: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …")

    check_answering(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    check_answering(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", failed)
    with pytest.raises(UserError, match=r"failed on H100 \(CUDA error: an illegal .*deformable=torchvision") as raised:
        check_answering(torch.device("cuda"))
    assert "\n" not in str(raised.value)
