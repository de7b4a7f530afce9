"""CUDA graphs: the same gradients and frames, and the plain network wherever nothing can be recorded."""

import gc
import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from stvsr import graphs
from stvsr.errors import InvalidInput
from stvsr.graphs import MOST_FORMS, MOST_PIXELS, Replayed, recorded_step
from stvsr.models.blocks import conv3x3
from stvsr.models.network import Forward, Network
from stvsr.ops.deformable import Sizes

IS_WORTH_RECORDING = Replayed._is_worth_recording
"""The original, because tests replace it."""


def test_training_steps_on_a_cpu_are_refused_in_one_line() -> None:
    with pytest.raises(InvalidInput, match="cuda_graphs=true on a CPU"):
        recorded_step(conv3x3(3, 3), torch.rand(1, 3, 8, 8))


@pytest.fixture
def with_torchvisions(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes torchvision the back end for deformable convolutions of `channels` channels; recording is stubbed."""

    def choose(channels: int) -> None:
        def backend_on(device: str, dtype: torch.dtype, sizes: Sizes) -> str:
            return "torchvision" if sizes.channels == channels else "triton"

        monkeypatch.setattr(graphs, "backend_on", backend_on)
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, inputs: module)
        monkeypatch.setattr(graphs, "_on_its_stream", nullcontext)

    return choose


ON_A_GPU = cast(Tensor, SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda")))


def test_a_deformable_convolution_that_escapes_the_recording_is_refused(
    small_network: Callable[..., Network], with_torchvisions: Callable[[int], None]
) -> None:
    """torchvision launches on the default stream: on an H100, offsets stayed zero and synthesised frames dark."""
    with_torchvisions(8)
    with pytest.raises(InvalidInput, match="cannot be recorded"):
        recorded_step(small_network(), ON_A_GPU)


def test_only_the_networks_own_deformable_convolutions_count(
    small_network: Callable[..., Network], with_torchvisions: Callable[[int], None]
) -> None:
    with_torchvisions(16)
    lr = torch.rand(1, 2, 3, 8, 8)
    network = small_network()
    assert torch.equal(recorded_step(network, ON_A_GPU)(lr), network(lr))


def test_a_recorded_step_keeps_what_it_replays(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.15 holds only a weak reference to a module that it recorded."""

    def recorded(module: nn.Module, inputs: tuple[Tensor], capture_error_mode: str = "global") -> nn.Module:
        kept, forward = weakref.ref(module), type(module).forward
        assert capture_error_mode == "thread_local", "a thread that fills pinned memory would end the recording"

        def replay(lr: Tensor) -> Tensor:
            alive = kept()
            assert alive is not None, "the recorded module has been freed"
            return cast(Tensor, forward(alive, lr))

        module.forward = replay  # type: ignore[method-assign]
        return module

    monkeypatch.setattr(graphs, "backend_on", lambda device, dtype, sizes: "triton")
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    monkeypatch.setattr(graphs, "_on_its_stream", nullcontext)
    network, lr = small_network(), torch.rand(1, 4, 3, 16, 16)
    step = recorded_step(network, ON_A_GPU)
    gc.collect()
    assert torch.equal(step(lr), network(lr))


WIDER = ("model.channels=32", "model.reconstruction_blocks=2")
"""For tests on a GPU, where a network of 8 channels would show little."""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("letter", "abcde")
def test_replayed_gradients_are_those_of_the_network(
    small_network: Callable[..., Network], bf16: bool, letter: str
) -> None:
    """With new inputs and changed weights, for every ablation; on a GPU sums over pixels have no fixed order."""
    network = small_network(letter, 0, *WIDER).cuda().train()
    inputs = [torch.rand(2, 4, 3, 16, 16, device="cuda") for _ in range(3)]
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        replay = recorded_step(network, inputs[0])
        for lr in inputs[1:]:
            gradients = []
            for run in (network, replay):
                network.zero_grad()
                run(lr).float().square().sum().backward()
                gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
            for plain, replayed in zip(*gradients, strict=True):
                assert (plain - replayed).norm() <= (0.05 if bf16 else 1e-3) * plain.norm() + 1e-6
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
                    torch.clear_autocast_cache()


class Counted(Network):
    """Counts its passes and keeps the input shapes that were recorded."""

    replayable = True

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.requirements = network, network.requirements
        self.runs = 0
        self.recordings: list[torch.Size] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.runs += 1
        made: Tensor = self.network(lr)
        return made


@pytest.fixture
def counted(small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A network whose passes all count as worth recording, as on a GPU, and whose recordings work."""
    # (a) is the fastest; any network would do.
    network = Counted(small_network("a"))

    def record(network: Counted, lr: Tensor, *, pool: object) -> Forward:
        network.recordings.append(lr.shape)
        return network.network.forward

    monkeypatch.setattr(graphs, "recorded_pass", record)
    monkeypatch.setattr(Replayed, "_is_worth_recording", lambda self, lr: True)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    return network


def windows(count: int, size: int = 16) -> list[Tensor]:
    draw = torch.Generator().manual_seed(size)
    return [torch.rand(1, 4, 3, size, size, generator=draw) for _ in range(count)]


def failing(failure: Exception) -> Callable[..., Forward]:
    """Makes a stand-in for `recorded_pass` that raises `failure`."""

    def record(network: Counted, lr: Tensor, *, pool: object) -> Forward:
        raise failure

    return record


@torch.no_grad()
def test_a_form_is_recorded_once_and_replayed_from_then_on(counted: Counted) -> None:
    replayed = Replayed(counted)
    for size in (16, 24):
        for lr in windows(3, size):
            assert torch.equal(replayed(lr), counted.network(lr))
    assert counted.recordings == [(1, 4, 3, 16, 16), (1, 4, 3, 24, 24)]
    assert counted.runs == 2, "but for the trial of each form it was replayed"


@torch.no_grad()
def test_a_recording_that_repeats_what_it_recorded_is_not_used(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that kernels escaped is right for the frames it was made with and wrong for all others."""

    def record(network: Counted, lr: Tensor, *, pool: object) -> Forward:
        recorded = network.network(lr)
        return lambda frames: recorded.clone()

    monkeypatch.setattr(graphs, "recorded_pass", record)
    replayed = Replayed(counted)
    first, *others = windows(3)
    with pytest.warns(
        UserWarning, match=r"no CUDA graph for inputs of shape \(1, 4, 3, 16, 16\): its output differs by"
    ):
        assert torch.equal(replayed(first), counted.network(first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in others:
            assert torch.equal(replayed(lr), counted.network(lr))


@torch.no_grad()
@pytest.mark.parametrize("failure", [RuntimeError("no engine"), torch.OutOfMemoryError("no memory")], ids=str)
def test_what_cannot_be_recorded_runs_as_ever(
    counted: Counted, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(graphs, "recorded_pass", failing(failure))
    replayed = Replayed(counted)
    first, second = windows(2)
    with pytest.warns(UserWarning, match=f": {failure}; the network runs without it"):
        assert torch.equal(replayed(first), counted.network(first))
    assert torch.equal(replayed(second), counted.network(second))
    assert counted.runs == 3, "not tried again"


@torch.no_grad()
def test_no_more_forms_are_recorded_than_memory_is_meant_for(counted: Counted) -> None:
    replayed = Replayed(counted)
    for size in range(4, 4 * (MOST_FORMS + 3), 4):
        (lr,) = windows(1, size)
        assert torch.equal(replayed(lr), counted.network(lr))
    assert len(counted.recordings) == MOST_FORMS


@torch.no_grad()
def test_precision_is_part_of_the_form(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = Replayed(counted)
    (lr,) = windows(1)
    for dtype in (None, torch.bfloat16, None, torch.bfloat16):
        monkeypatch.setattr(graphs, "_autocast_dtype", lambda dtype=dtype: dtype)
        replayed(lr)
    assert len(counted.recordings) == 2


def test_only_small_frames_on_a_gpu_without_gradients_are_worth_recording(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    def input_of(pixels: int, *, is_cuda: bool = True) -> Tensor:
        return cast(
            Tensor,
            SimpleNamespace(
                is_cuda=is_cuda, dtype=torch.float32, device=torch.device("cuda"), numel=lambda: 3 * pixels
            ),
        )

    monkeypatch.setattr(graphs, "backend_on", lambda device, dtype, sizes: "triton")
    replayed = Replayed(small_network())
    with torch.no_grad():
        assert replayed._is_worth_recording(input_of(MOST_PIXELS))
        assert not replayed._is_worth_recording(input_of(MOST_PIXELS + 1))
        assert not replayed._is_worth_recording(input_of(MOST_PIXELS, is_cuda=False))
    assert not replayed._is_worth_recording(input_of(MOST_PIXELS)), "with gradients"
    with torch.no_grad():
        monkeypatch.setattr(graphs, "backend_on", lambda device, dtype, sizes: "torchvision")
        assert not replayed._is_worth_recording(input_of(MOST_PIXELS)), "its kernels escape a recording"
        monkeypatch.setattr(graphs, "backend_on", lambda device, dtype, sizes: "triton")
        replayed.network.replayable = False
        assert not replayed._is_worth_recording(input_of(MOST_PIXELS)), "a network that does not declare it"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("letter", "abcde")
def test_replayed_frames_are_those_of_the_network(
    small_network: Callable[..., Network], bf16: bool, letter: str
) -> None:
    """With two alternating shapes and changed weights; other kernels may be used, which round differently."""
    network = small_network(letter, 0, *WIDER).cuda()
    replayed = Replayed(network)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        for lr in (window.cuda() for pair in zip(windows(3), windows(3, 24), strict=True) for window in pair):
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                found, expected = replayed(lr).float(), network(lr).float()
            assert (found - expected).abs().max() <= (0.02 if bf16 else 1e-3) * expected.std()
            for parameter in network.parameters():
                parameter.mul_(1.01)
    assert len(replayed._passes) == 2


@torch.no_grad()
def test_after_one_recording_that_failed_no_other_is_made(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "recorded_pass", failing(RuntimeError("no engine")))
    monkeypatch.setattr(graphs, "backend_on", lambda device, dtype, sizes: "triton")
    replayed = Replayed(counted)
    gpu = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda"), numel=lambda: 3)
    assert IS_WORTH_RECORDING(replayed, gpu)
    with pytest.warns(UserWarning, match="no engine"):
        replayed(windows(1)[0])
    assert not IS_WORTH_RECORDING(replayed, gpu)


@torch.no_grad()
def test_a_recording_that_ends_the_gpu_is_not_taken_for_one_that_failed(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(device: torch.device) -> None:
        raise InvalidInput("the GPU does not answer")

    monkeypatch.setattr(graphs, "recorded_pass", failing(RuntimeError("no engine")))
    monkeypatch.setattr(graphs, "check_answering", dead)
    with pytest.raises(InvalidInput, match="does not answer"):
        Replayed(counted)(windows(1)[0])
