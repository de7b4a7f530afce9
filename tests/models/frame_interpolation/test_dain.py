"""DAIN: the authors' network's numbers, frames of any size, where it starts, and that it learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import psnr
from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.dain import DAIN, padding
from stvsr.models.weight_files import find_tensors, load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = DAIN.weight_files[0]

GAINS = [
    ("depthNet.4.weight", 8.0),
    ("flownets.", 1.3),
    ("initScaleNets_filter1.", 0.25),
    ("initScaleNets_filter2.", 0.25),
    ("rectifyNet.", 0.9),
]


def small(seed: int = 0) -> DAIN:
    torch.manual_seed(seed)
    return DAIN(channels=2)


def noise(h: int, w: int) -> tuple[Tensor, Tensor]:
    frames = torch.from_numpy(np.random.RandomState(2020).random_sample((1, 2, 3, h, w))).float()
    return frames[:, 0], frames[:, 1]


def test_published_weights_compute_what_the_authors_network_computes(
    golden_state: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tolerance 2e-4 of the output's std for 90 % of the samples, 1e-2 of it for all together (root mean square).

    Another order of summation in float32 changes 95 % of the samples by up to 4e-5 of it. But positions are truncated
    to whole pixels: one that is nearly whole can go either way, and then a few samples near it are off by a hundredth.
    The smallest deliberate mistake that was tried is off by 4e-2 (root mean square). Like old files, this one
    has no `num_batches_tracked`.
    """
    state = golden_state("dain", gains=GAINS, default=1.4)
    tensors = find_tensors({name: tensor for name, tensor in state.items() if "num_batches" not in name})
    for name, tensor in tensors.items():
        if name.endswith("running_var"):
            tensor.abs_().add_(1)
    assert PUBLISHED.fits(tensors)
    network = DAIN().eval()
    load_weights(network, tensors, PUBLISHED, origin="file")
    with torch.no_grad():
        outputs = {"": network.synthesise(*noise(64, 128)), "padded_": network(*noise(100, 120))}
        monkeypatch.setattr(network.rectify_net, "forward", lambda clues: 0)
        outputs["mean_of_warped_"] = network.synthesise(*noise(128, 128))
    golden = np.load(GOLDEN / "dain.npz")
    for prefix, output in outputs.items():
        std = golden[f"{prefix}std"]
        difference = np.abs(output[:, :, 3::8, 5::8].numpy() - golden[f"{prefix}samples"]) / std
        most, overall = np.quantile(difference, 0.9), np.sqrt(np.square(difference).mean())
        off = f"{prefix}output off by {most:.1e}, all together by {overall:.1e} of the standard deviation"
        assert most < 2e-4, off
        assert overall < 1e-2, off
        assert abs(output.mean().item() - golden[f"{prefix}mean"]) < 1e-3 * std, off


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: None, None),
        (
            lambda state: state.pop("depthNet.3.0.0.3.0.0.3.0.1.3.0.1.2.2.3.bias"),
            r"missing tensors: depth_net\.hourglass\.lower",
        ),
        (lambda state: state.pop("flownets.deconv2.bias"), r"missing tensors: flow_net\.enlarge_flow\.2\.bias"),
        (lambda state: state.update(more=torch.ones(1)), "unexpected tensors: more"),
    ],
    ids=["as published", "too few", "an unused one too few", "too many"],
)
def test_a_file_with_other_tensors_is_refused(change: Callable[[dict[str, Tensor]], object], says: str | None) -> None:
    rows = [line.split("\t") for line in (GOLDEN / "dain_layout.tsv").read_text().splitlines()]
    with torch.device("meta"):
        network = DAIN()
        shapes = {name: [] if sizes == "scalar" else list(map(int, sizes.split("x"))) for name, sizes in rows}
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    change(state)
    if says is None:
        assert sorted(map(PUBLISHED.rename, state)) == sorted(network.state_dict())
        return
    with pytest.raises(InvalidInput, match=says):
        load_weights(network, state, PUBLISHED, origin="file")


@pytest.mark.parametrize(
    ("size", "sides"),
    [(128, (32, 32)), (256, (32, 32)), (100, (14, 14)), (101, (13, 14)), (129, (63, 64)), (8, (60, 60))],
)
def test_padding_is_that_of_the_authors_programs(size: int, sides: tuple[int, int]) -> None:
    assert padding(size) == sides


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 131), (128, 13)])
def test_frames_of_any_size_keep_it_and_untrained_it_gives_their_mean(h: int, w: int) -> None:
    """Even at the borders, where a wrong crop or a wrap-around would show."""
    before, after = torch.rand(2, 2, 3, h, w)
    network = small()
    torch.testing.assert_close(network(before, after), (before + after) / 2)
    with torch.no_grad():
        torch.testing.assert_close(network(before, after), (before + after) / 2)


def trained() -> DAIN:
    """A network whose parts all matter: no parameter is all zeros."""
    network = small()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def test_frames_alone_and_in_batches_give_the_same() -> None:
    # In float64: positions are truncated to whole pixels, and the order of a sum could decide to which.
    network, (before, after) = trained().double().eval(), torch.rand(2, 3, 3, 64, 64, dtype=torch.float64)
    together = network.synthesise(before, after)
    assert not torch.allclose(together, (before + after) / 2, atol=1e-2)
    with torch.no_grad():
        without_gradients = network.synthesise(before, after)
        one_by_one = torch.cat([network.synthesise(b[None], a[None]) for b, a in zip(before, after, strict=True)])
    torch.testing.assert_close(one_by_one, without_gradients)


def test_every_parameter_takes_part_but_the_one_that_the_authors_do_not_use() -> None:
    network = trained()
    network.synthesise(*torch.rand(2, 1, 3, 64, 64)).square().sum().backward()
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle == {"flow_net.enlarge_flow.2.weight", "flow_net.enlarge_flow.2.bias"}


class Unpadded(nn.Module):
    """The network without padding, which would make frames of 64x64 four times as large."""

    def __init__(self, network: DAIN) -> None:
        super().__init__()
        self.network = network

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.network.synthesise(before, after)


@pytest.mark.slow
def test_a_small_one_learns(generated_clip: Tensor, overfitted: Callable[..., float]) -> None:
    """It starts from the mean of the two frames, and reaches 1.4 to 2.3 dB more, depending on the seed."""
    before, target, after = generated_clip[:3, None, :, 32:96, 32:96]
    reached = overfitted(Unpadded(small()), [before, after], target, steps=30, rate=1e-3)
    blend = psnr((before + after) / 2, target)
    assert reached > blend + 1, f"{reached:.1f} dB against {blend:.1f} dB"
