"""RCAN: the published network's numbers, both layouts of its file, frames of any size, and that it learns."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import check_golden, psnr
from stvsr.data.degradation import bicubic, downsample
from stvsr.errors import InvalidInput
from stvsr.models import chunking
from stvsr.models.frame_upscaling.rcan import RCAN, AttentionBlock, ResidualGroup
from stvsr.models.weight_files import load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
AUTHORS, BASICSR = RCAN.weight_files
MEAN = 255 * torch.tensor([0.4488, 0.4371, 0.4040])

# Turns the authors' tensor names into BasicSR's, which has no mean shifts.
BASICSR_NAMES = (
    (r"^head\.0\.", "conv_first."),
    (r"^body\.10\.", "conv_after_body."),
    (r"^tail\.0\.", "upsample."),
    (r"^tail\.1\.", "conv_last."),
    (r"^body\.(\d+)\.body\.20\.", r"body.\1.conv."),
    (r"^body\.(\d+)\.body\.(\d+)\.body\.", r"body.\1.residual_group.\2.rcab."),
    (r"conv_du\.0\.", "attention.1."),
    (r"conv_du\.2\.", "attention.3."),
)


@pytest.fixture
def small() -> RCAN:
    torch.manual_seed(0)
    return RCAN(channels=8, groups=2, blocks=2, reduction=4)


@pytest.fixture
def published(golden_state: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """The reproducible fill, with mean shifts that do a little more than shift the mean (golden/README.md)."""
    state = golden_state("rcan", [("conv_du", 4.0), ("head.", 0.02), ("tail.1.", 5.0), ("body.", 0.6)], default=1.0)
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        more = state[f"{name}.weight"] * 3**0.5, state[f"{name}.bias"] * 10
        state[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1) + 0.02 * more[0]
        state[f"{name}.bias"] = sign * MEAN + more[1]
    return state


def layout() -> dict[str, Tensor]:
    """The tensors of the authors' file without content."""
    rows = [line.split("\t") for line in (GOLDEN / "rcan_layout.tsv").read_text().splitlines()]
    with torch.device("meta"):
        return {name: torch.empty(*map(int, sizes.split("x"))) for name, sizes in rows}


def as_basicsr(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in BASICSR_NAMES:
            name = re.sub(pattern, replacement, name)
        if "_mean" not in name:
            renamed[name] = tensor
    return renamed


def test_published_weights_compute_what_the_published_network_computes(published: dict[str, Tensor]) -> None:
    """In both layouts. Tolerance 1e-4 of the output's std: another order of summation changes 6e-6 of it."""
    images = torch.from_numpy(255 * np.random.RandomState(2020).random_sample((1, 3, 16, 24))).float()
    assert AUTHORS.fits(published)
    assert not BASICSR.fits(published)
    network = RCAN()
    load_weights(network, published, AUTHORS, origin="file")
    with torch.no_grad():
        check_golden(network.enlarge(images), "rcan", tolerance=1e-4, kind="shifted_")
    del network

    others = as_basicsr(published)
    assert BASICSR.fits(others)
    assert not AUTHORS.fits(others)
    network = RCAN()
    load_weights(network, others, BASICSR, origin="file")
    with torch.no_grad():
        output = 255 * network(images[None] / 255)[0]
    check_golden(output, "rcan", tolerance=1e-4)
    corner = np.load(GOLDEN / "rcan.npz")["corner_samples"]
    np.testing.assert_allclose(output[:, :, ::8, ::8], corner, rtol=0, atol=1e-4 * output.std().item())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("body.3.body.20.bias"), r"missing tensors: groups\.3\.conv\.bias"),
        (lambda state: state.pop("sub_mean.bias"), r"missing tensors: subtract_mean\.bias"),
        (lambda state: state.update({"body.11.bias": torch.ones(64)}), r"unexpected tensors: body\.11\.bias"),
        (lambda state: state.update(more=torch.ones(1)), "unexpected tensors: more"),
    ],
    ids=["too few", "no mean", "another body", "too many"],
)
def test_a_file_with_other_tensors_is_refused(change: Callable[[dict[str, Tensor]], object], says: str) -> None:
    with torch.device("meta"):
        network = RCAN()
    state = layout()
    change(state)
    with pytest.raises(InvalidInput, match=says):
        load_weights(network, state, AUTHORS, origin="file")


@pytest.mark.parametrize("reduction", [0, 16])
def test_a_reduction_to_no_channels_is_refused(reduction: int) -> None:
    with pytest.raises(InvalidInput, match=f"reduction={reduction}; expected 1 to channels=8"):
        RCAN(channels=8, groups=1, blocks=1, reduction=reduction)


@pytest.mark.parametrize(("b", "t", "h", "w"), [(1, 2, 8, 8), (2, 3, 9, 13), (3, 1, 17, 10)])
def test_frames_of_any_size_are_enlarged_each_by_itself(small: RCAN, b: int, t: int, h: int, w: int) -> None:
    frames = torch.rand(b, t, 3, h, w)
    together = small(frames)
    assert together.shape == (b, t, 3, 4 * h, 4 * w)
    with torch.no_grad():
        alone = small(frames[-1:, -1:])[0, 0]
    torch.testing.assert_close(together[-1, -1], alone, rtol=1e-4, atol=1e-5)


def test_frames_enlarged_in_turns_are_those_enlarged_together(small: RCAN, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.rand(2, 3, 3, 10, 12)
    together = small(frames).detach()
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 2 * 10 * 12)
    with torch.no_grad():
        torch.testing.assert_close(small(frames), together, rtol=1e-4, atol=1e-5)


def test_training_moves_everything_but_the_mean_shifts(small: RCAN) -> None:
    small(torch.rand(1, 2, 3, 8, 8)).square().sum().backward()
    fixed = [name for name, p in small.named_parameters() if p.grad is None]
    assert fixed == [f"{which}_mean.{what}" for which in ("subtract", "add") for what in ("weight", "bias")]


def test_mean_shifts_are_exact_under_autocast(small: RCAN) -> None:
    """bfloat16 would round values from 128 on to whole grey levels."""
    images = 255 * torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        shifted = small.add_mean(small.subtract_mean(images))
    torch.testing.assert_close(shifted, images, rtol=0, atol=1e-4)


def test_bright_frames_have_finer_steps_than_bfloat16_under_autocast(small: RCAN) -> None:
    """Before the mean colour is added, values are about 100, where bfloat16 has steps of half a grey level."""
    with torch.no_grad():
        small.tail.bias.fill_(100)
        with torch.autocast("cpu", torch.bfloat16):
            frames = small(torch.rand(1, 1, 3, 16, 16))
    assert frames.dtype == torch.float32
    assert all(len(colour.unique()) > 1024 for colour in frames[0, 0])


def test_an_attention_block_is_what_the_paper_says() -> None:
    """Its gradient too, where a residual changed in place would show."""
    torch.manual_seed(0)
    block = AttentionBlock(4, reduction=2).double()
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    residual = block.conv2(torch.relu(block.conv1(features)))
    squeeze, excite = block.attention.squeeze, block.attention.excite
    means = torch.stack([torch.stack([channel.mean() for channel in image]) for image in residual])
    hidden = torch.relu(means @ squeeze.weight[:, :, 0, 0].T + squeeze.bias)
    attention = torch.sigmoid(hidden @ excite.weight[:, :, 0, 0].T + excite.bias)
    expected = features + residual * attention[:, :, None, None]
    torch.testing.assert_close(block(features), expected)
    assert torch.autograd.gradcheck(block, features)


@pytest.mark.slow
def test_a_small_one_learns_what_bicubic_cannot_know(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It starts from a flat picture, and reaches 4 dB more than bicubic."""
    hr = generated_clip[None, 3:5, :, 48:80, 48:80]
    lr = downsample(hr)
    torch.manual_seed(0)
    reached = overfitted(RCAN(channels=16, groups=1, blocks=2, reduction=4), [lr], hr, steps=200, rate=5e-3)
    trivial = psnr(bicubic(lr, factor=4), hr)
    assert reached > trivial + 2, f"{reached:.1f} dB against {trivial:.1f} dB"


def test_small_residuals_are_not_rounded_away_under_autocast() -> None:
    """Each of the 20 blocks adds 1e-3 to features of 1, less than half of what bfloat16 can tell apart there."""
    group = ResidualGroup(4, blocks=20, reduction=2)
    with torch.no_grad():
        for name, parameter in group.named_parameters():
            parameter.fill_(2e-3 if name.endswith("conv2.bias") else 0)
        with torch.autocast("cpu", torch.bfloat16):
            output = group.blocks(torch.ones(1, 4, 5, 6))
            assert group(torch.ones(1, 4, 5, 6)).dtype == torch.float32
        network = RCAN(channels=4, groups=1, blocks=1, reduction=2)
        summed = network.conv.register_forward_hook(lambda *_: torch.full((1, 4, 5, 6), 1e-3, dtype=torch.bfloat16))
        head = network.head.register_forward_hook(lambda *_: torch.ones(1, 4, 5, 6, dtype=torch.bfloat16))
        enlarged: list[Tensor] = []
        network.up1.register_forward_pre_hook(lambda _, given: enlarged.append(given[0]))
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.rand(1, 1, 3, 5, 6))
        summed.remove()
        head.remove()
    torch.testing.assert_close(enlarged[0], torch.full((1, 4, 5, 6), 1.001), atol=1e-5, rtol=0)
    # With zero weights, the attention is a half.
    torch.testing.assert_close(output, torch.full((1, 4, 5, 6), 1.02), atol=1e-4, rtol=0)
