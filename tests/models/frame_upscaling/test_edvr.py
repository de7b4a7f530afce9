"""EDVR: the published network's numbers from both kinds of file, windows, attention, frames of any size and number."""

import re
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import psnr
from stvsr.data.degradation import bicubic, downsample
from stvsr.errors import InvalidInput
from stvsr.models.frame_upscaling.edvr import EDVR, Cascade, window_around
from stvsr.models.frame_upscaling.tsa_fusion import TemporalAttention, TSAFusion, similarity
from stvsr.models.network import pad_to_multiple
from stvsr.models.weight_files import find_tensors, load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
GAINS = [
    *[("conv_offset_mask", 1.5), ("sAtt_", 1.4), ("pcd_align", 2.0), ("fea_fusion", 2.0)],
    *[("feature_extraction", 0.5), ("recon_trunk", 0.5)],
]

AUTHORS, BASICSR = EDVR.weight_files

# Turns the authors' tensor names into BasicSR's; all 264 were compared with those of its code.
TO_BASICSR = (
    (r"^fea_L(.)_conv", r"conv_l\1_"),
    (r"L(.)_offset_conv(.)", r"offset_conv\2.l\1"),
    (r"L(.)_dcnpack", r"dcn_pack.l\1"),
    (r"L(.)_fea_conv", r"feat_conv.l\1"),
    (r"conv_offset_mask", "conv_offset"),
    (r"^tsa_fusion", "fusion"),
    (r"tAtt_2", "temporal_attn1"),
    (r"tAtt_1", "temporal_attn2"),
    (r"fea_fusion", "feat_fusion"),
    (r"sAtt_L", "spatial_attn_l"),
    (r"sAtt_add_", "spatial_attn_add"),
    (r"sAtt_", "spatial_attn"),
    (r"^recon_trunk", "reconstruction"),
    (r"^HRconv", "conv_hr"),
)


def to_basicsr(name: str) -> str:
    for pattern, replacement in TO_BASICSR:
        name = re.sub(pattern, replacement, name)
    return name


def small_edvr() -> EDVR:
    """A small network that samples at offsets, as it does after training."""
    torch.manual_seed(0)
    network = EDVR(channels=8, hr_channels=4, frames=3, deformable_groups=2, feature_blocks=1, reconstruction_blocks=1)
    for name, parameter in network.named_parameters():
        if "offset_mask" in name:
            nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim > 1 and "trunk" not in name:
            nn.init.kaiming_normal_(parameter, a=0.1)
    return network


def test_published_weights_under_either_name_compute_what_the_published_network_computes(
    golden_state: Callable[..., dict[str, Tensor]],
) -> None:
    """Tolerance 1e-4 of the output's std: float32 differs from float64 by 2e-5 of it (golden/README.md)."""
    authors = golden_state("edvr", GAINS, default=1.0)
    basicsr = find_tensors({"params": {to_basicsr(name): tensor for name, tensor in authors.items()}})
    network, other = EDVR(), EDVR()
    for each, tensors, published in ((network, authors, AUTHORS), (other, basicsr, BASICSR)):
        assert [kind for kind in EDVR.weight_files if kind.fits(tensors)] == [published]
        load_weights(each, tensors, published, origin="file")
    theirs = other.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())
    frames = torch.from_numpy(np.random.RandomState(2020).random_sample((1, 7, 3, 16, 24))).float()
    with torch.no_grad():
        output = network.enlarge_middle(frames[:, 3], [network.prepare(frame) for frame in frames.unbind(1)])
    golden = np.load(GOLDEN / "edvr.npz")
    for found, expected in ((output[:, :, 3::8, 5::8], "samples"), (output[:, :, ::8, ::8], "border")):
        difference = np.abs(found.numpy() - golden[expected]).max() / golden["std"]
        assert difference < 1e-4, f"{expected} off by {difference:.1e} of the standard deviation"
    assert abs(output.mean().item() - golden["mean"]) < 1e-4 * golden["std"]


@pytest.mark.parametrize(("frames", "expected"), [(7, 20_699_363), (5, 20_633_827)])
def test_it_has_the_parameters_of_the_published_network(frames: int, expected: int) -> None:
    with torch.device("meta"):
        network = EDVR(frames=frames)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(
    ("middle", "window"),
    [(0, "6540123"), (1, "6501234"), (2, "6012345"), (5, "2345678"), (7, "4567893"), (8, "5678943"), (9, "6789543")],
)
def test_windows_of_long_sequences_are_the_authors(middle: int, window: str) -> None:
    assert window_around(middle, length=10, size=7) == [int(index) for index in window]


@pytest.mark.parametrize(
    ("length", "windows"),
    [(1, ["0000000"]), (2, ["1010101", "0101010"]), (3, ["1210121", "2101210", "1012101"]), (6, ["3210123"])],
)
def test_windows_of_short_sequences_are_mirrored(length: int, windows: list[str]) -> None:
    for middle, window in enumerate(windows):
        assert window_around(middle, length=length, size=7) == [int(index) for index in window]


@pytest.mark.parametrize("length", range(1, 15))
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_windows_stay_in_the_sequence_and_frames_that_leave_them_do_not_return(length: int, size: int) -> None:
    windows = [window_around(middle, length=length, size=size) for middle in range(length)]
    for middle, window in enumerate(windows):
        assert window[size // 2] == middle
        assert set(window) <= set(range(length))
        assert length < size or len(set(window)) == size
    for index in range(length):
        seen = [middle for middle, window in enumerate(windows) if index in window]
        assert seen == list(range(seen[0], seen[-1] + 1))


def enlarged_from_scratch(network: EDVR, frames: Tensor, middle: int) -> Tensor:
    """One frame as the paper describes it: maps concatenated before convolutions, nothing shared."""
    window = window_around(middle, length=frames.shape[1], size=2 * network.reach + 1)
    pyramids = [network.pyramid(network.features(frames[:, index])) for index in window]
    target, aligned = pyramids[len(window) // 2], []

    align, cascade = network.align, network.cascade
    lrelu = partial(F.leaky_relu, negative_slope=0.1)
    up = partial(F.interpolate, scale_factor=2, mode="bilinear")

    def joined(*maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=1)

    for source in pyramids:
        of3 = lrelu(align.offset3[1](lrelu(align.offset3[0](joined(source.level3, target.level3)))))
        at3 = lrelu(align.sample3(source.level3, of3))
        of2 = lrelu(align.offset2[0](joined(source.level2, target.level2)))
        of2 = lrelu(align.offset2[2](lrelu(align.offset2[1](joined(of2, 2 * up(of3))))))
        at2 = lrelu(align.merge2(joined(align.sample2(source.level2, of2), up(at3))))
        of1 = lrelu(align.offset1[0](joined(source.level1, target.level1)))
        of1 = lrelu(align.offset1[2](lrelu(align.offset1[1](joined(of1, 2 * up(of2))))))
        at1 = align.merge1(joined(align.sample1(source.level1, of1), up(at2)))
        offset = lrelu(cascade.offset2(lrelu(cascade.offset1(joined(at1, target.level1)))))
        aligned.append(lrelu(cascade.sample(at1, offset)))
    base = F.interpolate(frames[:, middle], scale_factor=4, mode="bilinear")
    return network.reconstruction(network.fusion(aligned)) + base


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_frames_of_a_sequence_are_those_of_windows_computed_from_scratch(frames: int) -> None:
    network, lr = small_edvr(), torch.rand(2, frames, 3, 8, 12)
    with torch.no_grad():
        expected = torch.stack([enlarged_from_scratch(network, lr, middle) for middle in range(frames)], dim=1)
        torch.testing.assert_close(network(lr), expected, rtol=1e-4, atol=1e-4)


def test_features_of_a_frame_are_computed_once_and_kept_while_windows_need_them() -> None:
    network = small_edvr()
    alive: list[weakref.ref[Tensor]] = []
    most = []
    network.features.register_forward_hook(lambda _m, _i, output: alive.append(weakref.ref(output)))
    network.reconstruction.register_forward_hook(lambda *_: most.append(sum(ref() is not None for ref in alive)))
    with torch.no_grad():
        network(torch.rand(1, 8, 3, 8, 8))
    assert len(alive) == 8
    assert most == [3] * 8


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 14), (11, 8), (3, 2)])
def test_frames_of_any_size_are_padded_and_cut_back_each_sequence_for_itself(h: int, w: int) -> None:
    network, lr = small_edvr(), torch.rand(2, 2, 3, h, w)
    with torch.no_grad():
        output = network(lr)
        padded = torch.cat([network(pad_to_multiple(sequence[None], 4)) for sequence in lr])
    assert output.shape == (2, 2, 3, 4 * h, 4 * w)
    torch.testing.assert_close(output, padded[..., : 4 * h, : 4 * w], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [-2, -1])
def test_one_edge_of_a_frame_does_not_see_the_other(dim: int) -> None:
    network, lr = small_edvr(), torch.rand(1, 1, 3, 160, 8).movedim(-2, dim)
    changed = lr.clone()
    changed.narrow(dim, 0, 4).fill_(0.5)
    with torch.no_grad():
        difference = (network(lr) - network(changed)).abs()
    assert difference.narrow(dim, 0, 16).max() > 1e-3
    assert not difference.narrow(dim, 320, 320).any()


def test_every_parameter_takes_part_and_gradients_change_no_number() -> None:
    network, lr = small_edvr(), torch.rand(1, 2, 3, 16, 16)
    output = network(lr)
    output.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    with torch.no_grad():
        assert torch.equal(network(lr), output)


def test_an_even_window_is_refused() -> None:
    for frames in (4, -1):
        with pytest.raises(InvalidInput, match=rf"frames={frames}: .* expected an odd number"):
            EDVR(frames=frames)


def test_temporal_attention_weighs_each_pixel_by_its_likeness_to_the_middle_frame() -> None:
    torch.manual_seed(0)
    attention = TemporalAttention(channels=2).double()
    aligned = list(torch.rand(3, 1, 2, 3, 4, dtype=torch.float64))
    middle, embedded = attention.embed_middle(aligned[1]), [attention.embed(frame) for frame in aligned]
    expected = torch.zeros(1, 6, 3, 4, dtype=torch.float64)
    for frame in range(3):
        for y in range(3):
            for x in range(4):
                likeness = sum(embedded[frame][0, c, y, x] * middle[0, c, y, x] for c in range(2))
                weight = 1 / (1 + torch.exp(-likeness))
                expected[0, 2 * frame : 2 * frame + 2, y, x] = aligned[frame][0, :, y, x] * weight
    torch.testing.assert_close(attention(aligned), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_similarity_is_exact_under_autocast(dtype: torch.dtype) -> None:
    """Products of 90,000 exceed float16's range, and bfloat16 keeps two digits of large sums."""
    one, other = (torch.full((1, 128, 1, 1), 300, dtype=dtype) for _ in range(2))
    other[:, ::2] *= -1
    other[:, 0] = 1
    with torch.autocast("cpu", dtype=dtype):
        found = similarity(one, other)
    assert found.dtype == torch.float32
    assert found.item() == (one.double() * other.double()).sum().item()


def test_it_runs_under_autocast() -> None:
    network, lr = small_edvr(), torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        exact = network(lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = network(lr)
    assert (low - exact).abs().mean() < 0.1 * exact.std()


def test_gradients_of_attention_and_cascade_are_those_of_differences() -> None:
    torch.manual_seed(0)
    fusion = TSAFusion(channels=2, frames=3).double()
    cascade = Cascade(channels=2, deformable_groups=1).double()
    nn.init.normal_(cascade.sample.offset_mask.weight, std=0.3)
    nn.init.uniform_(cascade.sample.offset_mask.bias, 0.2, 0.4)
    maps = [torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *aligned: fusion(aligned), maps)
    assert torch.autograd.gradcheck(
        lambda aligned, target: cascade(aligned, cascade.share_of_target(target)), maps[:2], atol=1e-4
    )


class MiddleFrame(nn.Module):
    """The network, for the middle one of three frames."""

    def __init__(self, network: EDVR) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        return self.network.enlarge_middle(frames[:, 1], [self.network.prepare(frame) for frame in frames.unbind(1)])


@pytest.mark.slow
def test_it_learns(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It makes a frame of 32x32 pixels from three, 3 dB better than bicubic; it starts 0.7 dB below, from bilinear."""
    torch.manual_seed(0)
    hr = generated_clip[None, :3, :, 48:80, 48:80]
    lr = downsample(hr)
    sizes = {"channels": 16, "hr_channels": 16, "frames": 3, "feature_blocks": 1, "reconstruction_blocks": 1}
    network = EDVR(**sizes, deformable_groups=2)
    baseline = psnr(bicubic(lr, factor=4)[:, 1], hr[:, 1])
    reached = overfitted(MiddleFrame(network), [lr], hr[:, 1], steps=120, rate=2e-3)
    assert reached > baseline + 3, f"{reached:.2f} dB against {baseline:.2f} dB"
