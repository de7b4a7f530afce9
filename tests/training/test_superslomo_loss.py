"""SuperSloMo's loss: each term is the paper's, as a sum, and reaches the weights; VGG-16 is used only if weighted."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models import vgg

from stvsr.errors import InvalidInput
from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_interpolation.superslomo import SuperSloMo, warp
from stvsr.training import superslomo_loss
from stvsr.training.superslomo_loss import SuperSloMoLoss, roughness

WEIGHTS = {"reconstruction": 204.0, "perceptual": 0.005, "warping": 102.0, "smoothness": 1.0}
"""The paper's weights, as in the config."""

WITHOUT_FEATURES = WEIGHTS | {"perceptual": 0.0}

NO_TERM = {"reconstruction": 0.0, "perceptual": 0.0, "warping": 0.0, "smoothness": 0.0}


@pytest.fixture
def interpolator() -> SuperSloMo:
    torch.manual_seed(0)
    return SuperSloMo(channels=(8, 8, 16, 16, 16, 16))


def triplet(h: int = 32, w: int = 64, batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.rand(3, batch, 3, h, w, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def random_vgg(monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    """VGG-16's layers with random weights instead of torchvision's, which need a download."""
    torch.manual_seed(0)
    layers: nn.Sequential = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)
    monkeypatch.setattr(superslomo_loss, "vgg16", lambda weights: SimpleNamespace(features=layers))
    return layers


def test_reconstruction_is_the_sum_of_absolute_differences_of_the_frames_own_pixels(interpolator: SuperSloMo) -> None:
    before, after, target = triplet(20, 45)
    loss = SuperSloMoLoss(**NO_TERM | {"reconstruction": 3.0})(interpolator, before, after, target)
    torch.testing.assert_close(loss, 3 * (interpolator(before, after) - target).abs().sum())


def test_frames_too_small_for_vgg_are_refused(interpolator: SuperSloMo, random_vgg: nn.Sequential) -> None:
    before, after, target = triplet(7, 45)
    with pytest.raises(InvalidInput, match=r"frames of 45x7 are too small for VGG-16; expected sides of 8 or more"):
        SuperSloMoLoss(**NO_TERM | {"perceptual": 1.0})(interpolator, before, after, target)


def test_warping_carries_each_frame_to_the_time_of_the_others(interpolator: SuperSloMo) -> None:
    before, after, target = triplet()
    loss = SuperSloMoLoss(**NO_TERM | {"warping": 2.0})(interpolator, before, after, target)
    # With the mean colour subtracted, so that pixels from outside the frame have it.
    i0, i1, it = (interpolator.prepare(frames) for frames in (before, after, target))
    f01, f10 = interpolator.flow(torch.cat([i0, i1], dim=1)).chunk(2, dim=1)
    pairs = [
        (warp(i1, f01), i0),
        (warp(i0, f10), i1),
        (warp(i0, -0.25 * f01 + 0.25 * f10), it),
        (warp(i1, 0.25 * f01 - 0.25 * f10), it),
    ]
    torch.testing.assert_close(loss, 2 * sum((ours - theirs).abs().sum() for ours, theirs in pairs))


def test_smoothness_is_of_both_flows_and_scaled_as_the_other_terms(interpolator: SuperSloMo) -> None:
    before, after, target = triplet()
    loss = SuperSloMoLoss(**NO_TERM | {"smoothness": 5.0})(interpolator, before, after, target)
    made = interpolator.synthesise(interpolator.prepare(before), interpolator.prepare(after))
    expected = 5 * (roughness(made.forward_flow) + roughness(made.backward_flow)) * target.numel()
    torch.testing.assert_close(loss, expected)


def test_roughness_is_the_mean_step_across_and_down() -> None:
    flow = torch.tensor([[0.0, 1, 3], [0, 1, 5]]).expand(1, 2, 2, 3)
    assert roughness(flow).item() == pytest.approx((1 + 2 + 1 + 4) / 4 + (0 + 0 + 2) / 3)


def test_another_interpolator_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"the interpolator is Blend: use frame_interpolator=superslomo"):
        SuperSloMoLoss(**NO_TERM)(Blend(), *triplet())  # type: ignore[arg-type]


def test_the_terms_add_up(interpolator: SuperSloMo) -> None:
    parts = [
        SuperSloMoLoss(**NO_TERM | {name: weight})(interpolator, *triplet())
        for name, weight in WITHOUT_FEATURES.items()
    ]
    torch.testing.assert_close(SuperSloMoLoss(**WITHOUT_FEATURES)(interpolator, *triplet()), sum(parts))


def test_it_reaches_every_parameter(interpolator: SuperSloMo) -> None:
    SuperSloMoLoss(**WITHOUT_FEATURES)(interpolator, *triplet(64, 64)).backward()
    idle = [name for name, p in interpolator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_vggs_features_are_of_conv4_3_and_count(interpolator: SuperSloMo, random_vgg: nn.Sequential) -> None:
    before, after, target = triplet(32, 45)
    loss = SuperSloMoLoss(**NO_TERM | {"perceptual": 7.0})(interpolator, before, after, target)
    names = [f"{block}_{n}" for block, convs in enumerate((2, 2, 3, 3, 3), start=1) for n in range(1, convs + 1)]
    convs = [layer for layer in random_vgg if isinstance(layer, nn.Conv2d)]
    outputs: dict[str, Tensor] = {}
    last = convs[names.index("4_3")]
    last.register_forward_hook(lambda layer, given, output: outputs.update(features=output.clone()))

    def features(frames: Tensor) -> Tensor:
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
        random_vgg((frames - mean) / std)
        return outputs["features"]

    difference = features(interpolator(before, after)) - features(target)
    torch.testing.assert_close(loss, 7 * difference.square().mean() * target.numel())
    loss.backward()
    assert all(p.grad is not None for p in interpolator.parameters())
    assert all(p.grad is None for p in last.parameters())


def no_network(weights: Any) -> None:
    raise OSError("no route to host")


def test_weights_that_cannot_be_had_are_named_with_their_place_and_the_way_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(superslomo_loss, "vgg16", no_network)
    with pytest.raises(InvalidInput, match=r"no route to host.*vgg16-\w+\.pth of torchvision there.*perceptual=0"):
        SuperSloMoLoss(**WEIGHTS)
    SuperSloMoLoss(**WITHOUT_FEATURES)


def test_the_config_weighs_the_terms_as_the_paper_does(configure: Callable[..., DictConfig]) -> None:
    loss = configure("train", "experiment=two_stage/superslomo").objective.loss
    assert {name: loss[name] for name in WEIGHTS} == WEIGHTS


def test_a_negative_weight_of_features_is_not_taken_for_none() -> None:
    with pytest.raises(InvalidInput, match=r"objective\.loss\.perceptual=-0\.1; expected 0 or more"):
        SuperSloMoLoss(**NO_TERM | {"perceptual": -0.1})
