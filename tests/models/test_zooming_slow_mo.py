"""The network and its five variants: sizes, parameters, differences, limits."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from conftest import SMALL_NETWORK
from stvsr.errors import InvalidInput
from stvsr.models import chunking
from stvsr.models.alignment import DeformableSampling
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.blocks import conv3x3
from stvsr.models.network import pad_to_multiple, run_padded

# (b) to (e): the authors' network with parts left out; (a), which they did not release, as docs/design.md declares it.
PARAMETERS = {"a": 4_332_099, "b": 6_039_379, "c": 6_334_547, "d": 11_094_515, "e": 11_102_771}


@pytest.mark.parametrize(("variant", "expected"), PARAMETERS.items())
def test_variants_have_the_parameters_of_the_paper(
    configure: Callable[..., DictConfig], variant: str, expected: int
) -> None:
    with torch.device("meta"):
        network = instantiate(configure("train", f"ablation={variant}").model)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("frames", [2, 3, 4, 7])
@pytest.mark.parametrize("variant", "abcde")
def test_n_frames_become_2n_minus_1_frames_of_four_times_the_size(
    small_network: Callable[..., nn.Module], variant: str, frames: int
) -> None:
    with torch.no_grad():
        output = small_network(variant)(torch.rand(2, frames, 3, 8, 12))
    assert output.shape == (2, 2 * frames - 1, 3, 32, 48)


def test_the_five_variants_answer_pairwise_differently(small_network: Callable[..., nn.Module]) -> None:
    """An axis that a config names but the network ignores would make two of them equal."""
    lr = torch.rand(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    full, outputs = small_network("e").state_dict(), {}
    for variant in "abcde":
        network = small_network(variant)
        # Shared tensors get the same weights: with weights drawn anew, all would answer differently anyway.
        for name, tensor in network.state_dict().items():
            if name in full and tensor.shape == full[name].shape:
                tensor.copy_(full[name])
        with torch.no_grad():
            outputs[variant] = network(lr)
    for first, second in combinations("abcde", 2):
        assert (outputs[first] - outputs[second]).abs().max() > 1e-6, f"({first}) and ({second}) answer the same"


@pytest.mark.parametrize("variant", "abcde")
def test_clips_of_a_batch_do_not_influence_each_other(small_network: Callable[..., nn.Module], variant: str) -> None:
    network, lr = small_network(variant), torch.rand(3, 4, 3, 8, 8)
    with torch.no_grad():
        alone = torch.cat([network(clip[None]) for clip in lr])
        torch.testing.assert_close(network(lr), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("variant", "sees_future"), [("c", False), ("d", False), ("e", True)])
def test_only_the_bidirectional_variant_sees_later_frames(
    small_network: Callable[..., nn.Module], variant: str, sees_future: bool
) -> None:
    network, lr = small_network(variant), torch.rand(1, 4, 3, 8, 8)
    changed = lr.clone()
    changed[:, -1] = 1 - changed[:, -1]
    with torch.no_grad():
        difference = (network(lr) - network(changed)).abs().amax(dim=(0, 2, 3, 4))
    # Frame 5 is the last interpolated one; earlier ones see the change only by a backward pass.
    assert difference[5:].min() > 0
    assert bool((difference[:5] > 0).all()) == sees_future
    assert bool((difference[:5] > 0).any()) == sees_future


@pytest.mark.parametrize("variant", "cde")
def test_the_gradient_of_the_last_frame_reaches_the_first(
    small_network: Callable[..., nn.Module], variant: str
) -> None:
    """Only through the states: the last interpolation does not see the first frame."""
    lr = torch.rand(1, 4, 3, 8, 8, requires_grad=True)
    small_network(variant)(lr)[:, -1].square().sum().backward()
    assert lr.grad is not None
    assert lr.grad[:, 0].abs().amax() > 0


@pytest.mark.parametrize("variant", "abcde")
def test_every_parameter_takes_part(small_network: Callable[..., nn.Module], variant: str) -> None:
    network = small_network(variant)
    network(torch.rand(1, 3, 3, 8, 8)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []
    for name, part in network.named_modules():
        if isinstance(part, DeformableSampling):
            # Both lie in one tensor, where either's gradient could hide that the other has none.
            offsets, masks = part.offset_mask.weight.grad.tensor_split([part.offset_channels])
            assert offsets.any(), name
            assert masks.any(), name


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 4, 3, 10, 12), "12x10; expected .* multiples of 4"),
        ((1, 4, 3, 12, 10), "10x12; expected .* multiples of 4"),
        ((1, 4, 3, 0, 12), "no size of 0"),
        ((1, 4, 3, 8, 0), "no size of 0"),
        ((1, 1, 3, 8, 8), "at least 2"),
        ((1, 4, 1, 8, 8), "RGB"),
        ((0, 4, 3, 8, 8), "RGB"),
        ((4, 3, 8, 8), "RGB"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_the_remedy(
    small_network: Callable[..., nn.Module], shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        small_network("b")(torch.rand(*shape))


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 8), (7, 13), (1, 1)])
def test_padding_meets_the_need_and_is_cut_off_again(small_network: Callable[..., nn.Module], h: int, w: int) -> None:
    network, lr = small_network("b"), torch.rand(1, 2, 3, h, w)
    with torch.no_grad():
        output, padded = run_padded(network, lr), network(pad_to_multiple(lr, 4))
    assert output.shape == (1, 3, 3, 4 * h, 4 * w)
    assert torch.equal(output, padded[..., : 4 * h, : 4 * w])


def test_untrained_sampling_starts_on_the_regular_grid(configure: Callable[..., DictConfig]) -> None:
    network = instantiate(configure("train", "ablation=b", "model.channels=8").model)
    heads = [module for name, module in network.named_modules() if name.endswith("offset_mask")]
    assert len(heads) == 6
    assert all(not parameter.any() for head in heads for parameter in head.parameters())


def kept_and_gradients(network: nn.Module, lr: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    """How many values a forward pass keeps for the backward pass, and the gradients."""
    tensors: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: tensors.update({t.data_ptr(): t.numel()}) or t, lambda t: t
    ):
        output = network(lr)
    return sum(tensors.values()), torch.autograd.grad(output.square().sum(), list(network.parameters()))


@pytest.mark.parametrize("variant", "ace")
def test_checkpointing_keeps_less_and_gives_the_same_gradients(
    small_network: Callable[..., nn.Module], variant: str
) -> None:
    network, lr = small_network(variant).double(), torch.rand(2, 3, 3, 8, 12, dtype=torch.float64)
    kept, gradients = [], []
    at_once: list[int] = []
    network.reconstruction.register_forward_pre_hook(lambda _, given: at_once.append(len(given[0])))
    for checkpointing in (False, True):
        network.checkpointing = checkpointing  # type: ignore[assignment]
        saved, gradient = kept_and_gradients(network, lr)
        kept.append(saved)
        gradients.append(gradient)
    assert kept[1] < 0.5 * kept[0]
    # Of two clips: all five frames at once; with checkpointing frame by frame, and again for the gradients.
    assert at_once == [10, *[2] * 10]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [8, 0, -4])
def test_deformable_groups_that_do_not_divide_the_channels_are_refused(groups: int) -> None:
    from stvsr.models.interpolation import DeformableInterpolation

    with pytest.raises(
        InvalidInput, match=f"deformable_groups={groups} does not divide channels=12; choose a multiple"
    ):
        DeformableInterpolation(channels=12, deformable_groups=groups)


def test_a_dropout_of_ones_own_has_the_same_gradients_with_checkpointing(
    small_network: Callable[..., nn.Module],
) -> None:
    network = small_network("a")
    network.propagation = nn.Dropout(0.5)
    found = []
    for network.checkpointing in (False, True):
        torch.manual_seed(0)
        loss = network(torch.linspace(0, 1, 2 * 3 * 64).view(1, 2, 3, 8, 8)).sum()
        found.append(torch.autograd.grad(loss, [*network.features.parameters()]))
    for without, having in zip(*found, strict=True):
        torch.testing.assert_close(having, without)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("interpolation.channels=16", "DeformableInterpolation has channels=16, its parent module channels=8"),
        ("propagation.channels=16", "DeformableConvLSTM has channels=8, its parent module channels=16"),
        ("propagation.recurrence.channels=16", "DeformableConvLSTM has channels=16, its parent module channels=8"),
        ("interpolation=null", "interpolation=None; expected one of the parts in conf/model"),
        ("propagation=null", "propagation=None; expected one of the parts in conf/model"),
        ("propagation.recurrence=null", "recurrence=None; expected one of the parts in conf/model"),
    ],
)
def test_parts_of_another_width_or_none_are_refused_before_any_step(
    configure: Callable[..., DictConfig], setting: str, says: str
) -> None:
    config = configure("train", *SMALL_NETWORK, f"model.{setting}")
    # Hydra wraps errors of what it instantiates.
    with pytest.raises((InvalidInput, InstantiationException), match=says):
        instantiate(config.model)


def test_bicubic_blend_keeps_given_frames_and_averages_between() -> None:
    lr = torch.rand(1, 3, 3, 6, 5)
    output = BicubicBlend()(lr)
    assert output.shape == (1, 5, 3, 24, 20)
    torch.testing.assert_close(output[:, 1], (output[:, 0] + output[:, 2]) / 2)
    torch.testing.assert_close(output[:, 3], (output[:, 2] + output[:, 4]) / 2)
    flat = torch.full((1, 2, 3, 4, 4), 0.25)
    torch.testing.assert_close(BicubicBlend()(flat), torch.full((1, 3, 3, 16, 16), 0.25))


def test_bright_frames_have_finer_steps_than_bfloat16_under_autocast(configure: Callable[..., DictConfig]) -> None:
    """In [0.5, 1) bfloat16 has only 128 values, one per grey level."""
    torch.manual_seed(0)
    network = instantiate(configure("train", *SMALL_NETWORK, "ablation=a").model)
    with torch.no_grad():
        network.reconstruction.tail.bias.fill_(0.75)
        with torch.autocast("cpu", torch.bfloat16):
            frames = network(torch.rand(1, 2, 3, 16, 16))
    assert frames.dtype == torch.float32
    bright = frames[(frames >= 0.5) & (frames < 1)]
    assert len(bright.unique()) > 128


def test_features_begin_in_float32_under_autocast(small_network: Callable[..., nn.Module]) -> None:
    """A convolution of three input channels: in bfloat16 it would lose grey levels for next to no gain."""
    features = small_network("b").features
    seen: list[torch.dtype] = []
    features.trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features(torch.rand(1, 3, 8, 8))
    assert seen == [torch.float32]


def test_weights_and_frames_lie_with_their_channels_last(
    small_network: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise convolutions would transpose them in every pass; also for large frames, made some rows at a time."""
    network, layout = small_network("e"), {"memory_format": torch.channels_last}
    assert all(p.is_contiguous(**layout) for p in network.parameters() if p.ndim == 4)
    monkeypatch.setattr(chunking, "LARGEST_WHOLE", 1)
    with torch.no_grad():
        assert network.reconstruction(torch.rand(1, 8, 40, 8).contiguous(**layout)).is_contiguous(**layout)


def test_deformable_sampling_begins_as_strong_as_a_convolution() -> None:
    torch.manual_seed(0)
    sampling, conv = DeformableSampling(channels=64, deformable_groups=8), conv3x3(64, 64)
    assert sampling.weight.std().item() == pytest.approx(conv.weight.std().item(), rel=0.02)


def test_there_may_be_no_residual_blocks(small_network: Callable[..., nn.Module]) -> None:
    network = small_network("b", 0, "model.feature_blocks=0", "model.reconstruction_blocks=0")
    assert network(torch.rand(1, 2, 3, 8, 8)).shape == (1, 3, 3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("exported", [False, True])
def test_the_whole_network_compiles_and_is_exported_in_one_graph(
    small_network: Callable[..., nn.Module], exported: bool
) -> None:
    network, lr = small_network("e"), torch.rand(1, 4, 3, 8, 8)
    with torch.no_grad():
        whole = (
            torch.export.export(network, (lr,)).module()
            if exported
            else torch.compile(network, backend="eager", fullgraph=True)
        )
        # They use different back ends of the deformable convolution.
        torch.testing.assert_close(whole(lr), network(lr), atol=1e-5, rtol=0)
