"""(e) begins where (b) ends, and everything in its recurrence can learn from there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from stvsr.data.degradation import downsample
from stvsr.models.blended_start import start_at_blended_frames
from stvsr.models.grown_start import can_grow, handing_on
from stvsr.models.propagation import Bidirectional
from stvsr.training.losses import charbonnier

Configure = Callable[..., DictConfig]
SMALL = ["model.feature_blocks=1", "model.reconstruction_blocks=1"]


def model(configure: Configure, variant: str, channels: int = 16) -> DictConfig:
    return configure("train", f"ablation={variant}", f"model.channels={channels}", *SMALL).model


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def grown(configure: Configure, channels: int = 16) -> tuple[nn.Module, nn.Module]:
    """A network (b) and the (e) grown from it."""
    torch.manual_seed(0)
    smaller, larger = (instantiate(model(configure, variant, channels)) for variant in "be")
    start_at_blended_frames(smaller)
    larger.load_state_dict(smaller.state_dict() | handing_on(larger.propagation))
    return smaller, larger


@pytest.mark.parametrize(("channels", "frames"), [(16, 2), (16, 3), (16, 4), (8, 3), (64, 3)])
def test_a_grown_network_makes_the_frames_it_grew_from(
    configure: Configure, generated_clip: Tensor, channels: int, frames: int
) -> None:
    smaller, larger = grown(configure, channels)
    lr = downsample(generated_clip[::2])[None, :frames]
    with torch.no_grad():
        # Where features are 1, the two tanh are off by 0.33 and 0.08 percent.
        torch.testing.assert_close(larger(lr), smaller(lr), atol=0.006, rtol=0)


def test_features_of_ordinary_size_come_through(configure: Configure) -> None:
    """In every channel of every frame, whatever the neighbouring frames hold."""
    torch.manual_seed(0)
    propagation = instantiate(model(configure, "e").propagation)
    assert isinstance(propagation, Bidirectional)
    handing_on(propagation)
    features = torch.rand(3, 2, 16, 8, 8) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(propagation(features), features, atol=0.005, rtol=0)


def test_every_weight_of_the_recurrence_learns_within_a_few_steps(configure: Configure, generated_clip: Tensor) -> None:
    _, network = grown(configure)
    hr = generated_clip[None, ..., :64, :64]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = {name: tensor.clone() for name, tensor in network.propagation.named_parameters()}
    for _ in range(4):
        optimizer.zero_grad()
        charbonnier(network(downsample(hr[:, ::2])), hr).backward()
        optimizer.step()
    still = [name for name, tensor in network.propagation.named_parameters() if torch.equal(tensor, before[name])]
    assert not still


@pytest.mark.parametrize(("smaller", "larger"), [("a", "e"), ("b", "d"), ("b", "b"), ("e", "b"), ("d", "e")])
def test_nothing_but_b_grows_and_only_to_e(configure: Configure, smaller: str, larger: str) -> None:
    assert not can_grow(plain(model(configure, smaller)), plain(model(configure, larger)))


def test_nothing_grows_to_a_propagation_of_ones_own(configure: Configure) -> None:
    """How the states of a custom one carry frames is unknown."""
    smaller, larger = (plain(model(configure, variant)) for variant in "be")
    assert can_grow(smaller, larger)
    own = larger["propagation"]["recurrence"] | {"_target_": "lab.Peephole"}
    assert not can_grow(smaller, larger | {"propagation": larger["propagation"] | {"recurrence": own}})
    assert not can_grow(smaller, larger | {"propagation": larger["propagation"] | {"_target_": "lab.Bidirectional"}})


def test_networks_of_different_size_do_not_grow(configure: Configure) -> None:
    assert can_grow(plain(model(configure, "b", 16)), plain(model(configure, "e", 16)))
    assert can_grow(plain(model(configure, "b", 16)), plain(model(configure, "e", 16)) | {"checkpointing": True})
    assert not can_grow(plain(model(configure, "b", 8)), plain(model(configure, "e", 16)))
