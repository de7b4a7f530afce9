"""RBPN: the published network's numbers, its windows and flow, frames of any size, and that it learns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import moving_frames, psnr
from stvsr.data.clip import to_float
from stvsr.data.degradation import bicubic, downsample
from stvsr.data.optical_flow import optical_flow
from stvsr.errors import InvalidInput
from stvsr.models.frame_upscaling.back_projection import BackProjection, PReLUBlock, Projection
from stvsr.models.frame_upscaling.rbpn import RBPN
from stvsr.models.weight_files import find_tensors, load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = RBPN.weight_files[0]


def small_network(frames: int = 3) -> RBPN:
    torch.manual_seed(0)
    return RBPN(lr_channels=8, hr_channels=4, stages=2, blocks=1, frames=frames)


def test_published_weights_compute_what_the_published_network_computes(
    golden_state: Callable[..., dict[str, Tensor]],
) -> None:
    """Tolerance 1e-4 of the output's std: another order of summation changes 5e-6 of it (golden/README.md)."""
    state = golden_state("rbpn", [("deconv", 3.0), ("res_feat", 0.7)], default=1.0)
    slopes = {name: (0.25 + 0.5 * z).abs() for name, z in state.items() if name.endswith("act.weight")}
    tensors = find_tensors({f"module.{name}": tensor for name, tensor in (state | slopes).items()})
    assert PUBLISHED.fits(tensors)
    network = RBPN()
    load_weights(network, tensors, PUBLISHED, origin="file")
    random = np.random.RandomState(2020)
    frames = torch.from_numpy(random.random_sample((7, 3, 16, 24))).float()
    flows = torch.from_numpy((random.random_sample((6, 2, 16, 24)) - 0.5) * 4).float()
    with torch.no_grad():
        output = network.enlarge(frames[3:4], frames[None, [0, 1, 2, 4, 5, 6]], flows[None])
    golden = np.load(GOLDEN / "rbpn.npz")
    for samples, ours in (("samples", output[:, :, 3::8, 5::8]), ("corner_samples", output[:, :, ::8, ::8])):
        difference = np.abs(ours.numpy() - golden[samples]).max() / golden["std"]
        assert difference < 1e-4, f"{samples}: off by {difference:.1e} of the standard deviation"
    assert abs(output.mean().item() - golden["mean"]) < 1e-4 * golden["std"]


@pytest.mark.parametrize(("frames", "expected"), [(3, 12_765_031), (5, 12_768_487), (7, 12_771_943)])
def test_it_has_the_parameters_of_the_published_network(frames: int, expected: int) -> None:
    with torch.device("meta"):
        network = RBPN(frames=frames)
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.reach == frames // 2


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_a_window_has_a_frame_in_its_middle(frames: int) -> None:
    with pytest.raises(InvalidInput, match=f"frames={frames}; expected an odd number"):
        RBPN(frames=frames)


def test_a_back_projection_without_stages_is_refused() -> None:
    with pytest.raises(InvalidInput, match="stages=0; expected 1 or more"):
        RBPN(stages=0)


@pytest.mark.parametrize(("b", "t", "h", "w"), [(1, 1, 8, 8), (1, 2, 9, 13), (2, 3, 17, 10)])
def test_frames_of_any_size_and_number_alone_and_in_batches(b: int, t: int, h: int, w: int) -> None:
    network, frames = small_network(), torch.rand(b, t, 3, h, w)
    together = network(frames)
    assert together.shape == (b, t, 3, 4 * h, 4 * w)
    with torch.no_grad():
        torch.testing.assert_close(network(frames[-1:])[0], together[-1], rtol=1e-4, atol=1e-5)


# By length of a clip: each frame's neighbours in a window of seven.
WINDOWS = {
    1: [[0, 0, 0, 0, 0, 0]],
    2: [[0, 0, 0, 1, 0, 0], [1, 1, 0, 1, 1, 1]],
    5: [
        [0, 0, 0, 1, 2, 3],
        [1, 1, 0, 2, 3, 4],
        [2, 0, 1, 3, 4, 2],
        [0, 1, 2, 4, 3, 3],
        [1, 2, 3, 4, 4, 4],
    ],
}


@pytest.mark.parametrize("count", WINDOWS)
def test_the_frame_itself_with_zero_flow_stands_for_what_lies_outside_the_clip(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, clip = small_network(frames=7), moving_frames(5, (24, 32), speed=2)[:count]
    given: list[tuple[Tensor, Tensor, Tensor]] = []
    monkeypatch.setattr(network, "enlarge", lambda *window: given.append(window) or window[0])
    network(to_float(clip)[None])
    for number, ((target, neighbours, flows), places) in enumerate(zip(given, WINDOWS[count], strict=True)):
        assert torch.equal(target[0], to_float(clip[number]))
        assert torch.equal(neighbours[0], to_float(clip[places]))
        expected = optical_flow(clip, [(number, place) for place in places], finest_scale=0)
        assert torch.equal(flows[0], expected)
        assert [bool(flow.any()) for flow in flows[0]] == [place != number for place in places]


def test_bright_frames_have_finer_steps_than_bfloat16_under_autocast() -> None:
    """In [0.5, 1) bfloat16 has only 128 values, one per grey level."""
    network = small_network()
    with torch.no_grad():
        network.output.weight.mul_(0.1)
        network.output.bias.fill_(0.75)
        with torch.autocast("cpu", torch.bfloat16):
            frames = network(torch.rand(1, 1, 3, 16, 16))
    assert frames.dtype == torch.float32
    bright = frames[(frames >= 0.5) & (frames < 1)]
    assert len(bright.unique()) > 128


def test_a_frame_sees_its_window_and_no_more() -> None:
    network, frames = small_network(frames=3), torch.rand(1, 4, 3, 12, 16)
    changed = frames.clone()
    changed[:, -1] = 1 - changed[:, -1]
    with torch.no_grad():
        difference = (network(frames) - network(changed)).abs().amax(dim=(0, 2, 3, 4))
    assert [bool(value > 0) for value in difference] == [False, False, True, True]


def test_every_parameter_takes_part() -> None:
    network = small_network()
    network(torch.rand(1, 2, 3, 8, 8)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_it_can_be_tried_without_content() -> None:
    """Costs and memory are found without content, so flow must not need pixels."""
    network = small_network()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert network(torch.empty(2, 3, 3, 10, 12)).shape == (2, 3, 3, 40, 48)


def project(projection: Projection, features: Tensor) -> Tensor:
    moved = projection.there(features)
    expected: Tensor = moved + projection.correct(projection.back(moved) - features)
    return expected


def test_back_projection_is_what_the_paper_says() -> None:
    """Here maps are concatenated, the last first; the network convolves each with its part of the weights."""
    torch.manual_seed(0)
    network = BackProjection(in_channels=3, channels=2, stages=3).double()
    features = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    first = project(network.ups[0], network.reduce(features))
    second = project(network.ups[1], project(network.downs[0], first))
    third = project(network.ups[2], project(network.downs[1], second))
    joined = network.merge(torch.cat([third, second, first], dim=1))
    torch.testing.assert_close(network(features), joined)
    assert torch.autograd.gradcheck(network, features)


def test_a_block_adds_before_its_second_activation() -> None:
    torch.manual_seed(0)
    block = PReLUBlock(2).double()
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    hidden = F.prelu(block.conv1(features), block.act.weight)
    expected = F.prelu(features + block.conv2(hidden), block.act.weight)
    torch.testing.assert_close(block(features), expected)
    assert torch.autograd.gradcheck(block, features)


def test_its_first_answers_are_as_strong_as_pictures() -> None:
    """With PyTorch's own initialisation they are a tenth of it, too faint to learn from."""
    torch.manual_seed(0)
    with torch.no_grad():
        answers = RBPN(lr_channels=16, hr_channels=16, stages=2, blocks=1, frames=3)(torch.rand(1, 3, 3, 8, 8))
    assert 0.2 < answers.std() < 2


@pytest.mark.slow
def test_a_small_one_learns_what_bicubic_cannot_know(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It starts from noise, and reaches 7 dB more than bicubic (5 to 8 dB from other seeds)."""
    hr = generated_clip[None, 3:5, :, 48:64, 4:20]
    lr = downsample(hr)
    torch.manual_seed(0)
    network: nn.Module = RBPN(lr_channels=16, hr_channels=16, stages=2, blocks=1, frames=3)
    reached = overfitted(network, [lr], hr, steps=60, rate=3e-3)
    trivial = psnr(bicubic(lr, factor=4), hr)
    assert reached > trivial + 3, f"{reached:.1f} dB against {trivial:.1f} dB"
