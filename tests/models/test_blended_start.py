"""Before the first step, the network enlarges given frames and the means of neighbours; offsets learn at once."""

from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from stvsr.data.degradation import downsample
from stvsr.errors import InvalidInput
from stvsr.models.alignment import DeformableSampling, PCDAlignment, deformable_fusion
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.blended_start import PARABOLA, start_at_blended_frames
from stvsr.models.blocks import ResidualBlock
from stvsr.models.carrying import carry_through, offsets_see_pictures
from stvsr.models.propagation import Bidirectional, Recurrence
from stvsr.training.losses import charbonnier

BORDER = 16
"""HR pixels at the border that zero padding darkens."""


@pytest.fixture
def started(configure: Callable[..., DictConfig]) -> Callable[..., nn.Module]:
    def build(variant: str, channels: int) -> nn.Module:
        torch.manual_seed(0)
        small = [f"model.channels={channels}", "model.feature_blocks=2", "model.reconstruction_blocks=2"]
        network: nn.Module = instantiate(configure("train", f"ablation={variant}", *small).model)
        start_at_blended_frames(network)
        return network

    return build


def enlarged(frames: Tensor) -> Tensor:
    """Enlarges by 2 twice, with the taps written as sums over neighbours: `(…, h, w)` to `(…, 4h, 4w)`."""
    for dim in (-1, -2, -1, -2):
        before, after = frames.roll(1, dim), frames.roll(-1, dim)
        phases = [a * before + b * frames + c * after for a, b, c in PARABOLA]
        frames = torch.stack(phases, dim=dim if dim == -1 else -2).flatten(*((-2, -1) if dim == -1 else (-3, -2)))
    return frames


# With few channels some groups of the deformable convolutions carry nothing.
@pytest.mark.parametrize(("variant", "channels"), [*((variant, 16) for variant in "abcde"), ("e", 8), ("b", 64)])
def test_an_untrained_network_enlarges_frames_and_the_mean_of_neighbours(
    started: Callable[..., nn.Module], generated_clip: Tensor, variant: str, channels: int
) -> None:
    lr = downsample(generated_clip[::2])
    between = torch.stack([*lr, *((lr[:-1] + lr[1:]) / 2)])[[0, 4, 1, 5, 2, 6, 3]]
    with torch.no_grad():
        frames = started(variant, channels)(lr[None])[0]
    inner = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    # tanh is off by a third of a percent, (c) keeps 2 % of the previous state, LeakyReLU some of what is below black.
    torch.testing.assert_close(frames.clamp(0, 1)[inner], enlarged(between).clamp(0, 1)[inner], atol=0.03, rtol=0)


def test_the_finest_offsets_of_the_interpolation_learn_in_the_first_step_and_all_in_the_second(
    started: Callable[..., nn.Module], generated_clip: Tensor
) -> None:
    """Only offsets are checked: masks learn anyway."""
    network, hr = started("e", 16), generated_clip[None, ..., :64, :64]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    learning = []
    for _ in range(2):
        optimizer.zero_grad()
        charbonnier(network(downsample(hr[:, ::2])), hr).backward()
        learning.append({name for name, part in samplings(network) if offsets_learn(part)})
        optimizer.step()
    assert learning[0] == {f"interpolation.fusion.align_{which}.sample1" for which in ("first", "second")}
    assert learning[1] == {name for name, _ in samplings(network)}


def samplings(network: nn.Module) -> list[tuple[str, DeformableSampling]]:
    return [(name, part) for name, part in network.named_modules() if isinstance(part, DeformableSampling)]


def offsets_learn(sampling: DeformableSampling) -> bool:
    gradient = sampling.offset_mask.weight.grad
    return gradient is not None and bool(gradient[: sampling.offset_channels].any())


def test_what_predicts_offsets_sees_a_picture_and_not_its_brightness(
    started: Callable[..., nn.Module], configure: Callable[..., DictConfig], generated_clip: Tensor
) -> None:
    """Compares the spatial contrast of the features that offsets are predicted from; brightness has none."""
    torch.manual_seed(0)
    plain = instantiate(configure("train", "ablation=b", "model.channels=16").model)
    lr = downsample(generated_clip[::2])[None]

    def contrast(network: nn.Module, frames: Tensor) -> float:
        seen: list[Tensor] = []
        alignment = network.interpolation.fusion.align_first
        handle = alignment.sample1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
        with torch.no_grad():
            network(frames)
        handle.remove()
        return seen[0][..., 8:-8, 8:-8].std(dim=(-2, -1)).mean().item()

    ours = started("b", 16)
    assert contrast(ours, lr) > 5 * contrast(plain, lr)
    # The same holds in the recurrence.
    alignments = [part for part in started("e", 16).modules() if isinstance(part, PCDAlignment)]
    firsts = [each.get_submodule(f"offset{level}.0") for each in alignments for level in (1, 2, 3)]
    assert len(firsts) == 18
    assert all(first.weight.sum(dim=(2, 3)).abs().amax() < 1e-5 for first in firsts)


def test_every_group_of_the_deformable_convolutions_carries_frames(started: Callable[..., nn.Module]) -> None:
    """At the paper's width. A group that carries none would not learn from the first step on."""
    weight = started("b", 64).interpolation.fusion.align_first.sample1.weight
    carried = (weight.flatten(1) != 0).sum(dim=1) == 1
    assert carried.view(8, 8).any(dim=1).all()


def test_another_network_is_refused() -> None:
    with pytest.raises(InvalidInput, match="blended_start=true with BicubicBlend"):
        start_at_blended_frames(BicubicBlend())


def test_too_few_channels_are_refused(configure: Callable[..., DictConfig]) -> None:
    narrow = configure("train", "ablation=a", "model.channels=4", "model.feature_blocks=1")
    with pytest.raises(InvalidInput, match="4 channels; expected at least 6"):
        start_at_blended_frames(instantiate(narrow.model))


def test_an_interpolation_of_a_contributor_is_refused_in_words(small_network: Callable[..., nn.Module]) -> None:
    network = small_network("b")
    network.interpolation = nn.Identity()
    with pytest.raises(InvalidInput, match=r"blended_start=true with Identity; .*blended_start=false"):
        start_at_blended_frames(network)


def test_an_alignment_of_a_contributor_is_refused_in_words(small_network: Callable[..., nn.Module]) -> None:
    """Even if blocks of another width lie within it."""
    network = small_network("b")
    network.interpolation.fusion.align_second = nn.Sequential(ResidualBlock(2))
    with pytest.raises(InvalidInput, match=r"blended_start=true with Sequential; .*blended_start=false"):
        start_at_blended_frames(network)


def test_a_recurrence_of_a_contributor_is_refused_in_words() -> None:
    """Not by an assertion: this is the first error for whoever adds one and tries `recipe=demo`."""
    with pytest.raises(InvalidInput, match=r"Recurrence: .*blended_start=false"):
        carry_through(Bidirectional(recurrence=Recurrence(), channels=8), torch.arange(3))


def test_offsets_begin_with_a_contrast_that_is_enlarged() -> None:
    torch.manual_seed(0)
    alignment = PCDAlignment(channels=32, deformable_groups=8)
    offsets_see_pictures(alignment)
    first, second = (alignment.offset1[at].weight for at in (0, 1))
    # Both have as many input channels; the first has lost its means, a ninth of its variance.
    assert first.std().item() == pytest.approx(4 * (8 / 9) ** 0.5 * second.std().item(), rel=0.05)


def test_a_picture_is_as_large_at_the_top_of_a_pyramid_as_at_its_bottom() -> None:
    """If each convolution halved it, little would be left to predict offsets from."""
    torch.manual_seed(0)
    fusion = deformable_fusion(channels=32, deformable_groups=8)
    offsets_see_pictures(fusion)
    with torch.no_grad():
        bottom, _, top = fusion.pyramid(torch.randn(1, 32, 64, 64))
    assert top.square().mean().item() == pytest.approx(bottom.square().mean().item(), rel=0.5)
