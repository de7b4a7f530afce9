"""Validation means per motion split: which clips count, and how splits weigh."""

import pytest
import torch

from stvsr.evaluation.metrics import frame_scores, psnr_y
from stvsr.evaluation.splits import HIGHEST, MotionSplitScores


def batch(noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(1, 7, 3, 16, 16, generator=generator) * 255).round() / 255
    return target + noise * torch.randn(target.shape, generator=generator), target


def test_splits_are_means_over_frames_then_clips_and_their_mean_weighs_them_equally() -> None:
    clips = [(*batch(0.01, 0), "slow"), (*batch(0.03, 1), "slow"), (*batch(0.1, 2), "fast")]
    metric = MotionSplitScores()
    for prediction, target, motion in clips:
        metric.update(prediction, target, [motion])
    result = {name: value.item() for name, value in metric.compute().items()}
    for name, scored in (("psnr", "psnr_y"), ("ssim", "ssim_y")):
        values = [frame_scores(prediction, target)[scored].mean().item() for prediction, target, _ in clips]
        slow = (values[0] + values[1]) / 2
        assert result[f"{name}/slow"] == pytest.approx(slow)
        assert result[f"{name}/fast"] == pytest.approx(values[2])
        assert result[f"{name}/mean"] == pytest.approx((slow + values[2]) / 2)
    metric.reset()
    assert metric.compute() == {}


def test_a_batch_of_clips_is_each_of_its_clips() -> None:
    (p1, t1), (p2, t2) = batch(0.02, 0), batch(0.05, 1)
    together, apart = MotionSplitScores(), MotionSplitScores()
    together.update(torch.cat([p1, p2]), torch.cat([t1, t2]), ["slow", "fast"])
    apart.update(p1, t1, ["slow"])
    apart.update(p2, t2, ["fast"])
    assert {k: v.item() for k, v in together.compute().items()} == {k: v.item() for k, v in apart.compute().items()}


def test_a_frame_that_is_right_in_all_pixels_counts_no_less_than_one_that_is_almost() -> None:
    """Otherwise validation scores would fall when a network learns to predict black exactly."""
    prediction, target = batch(0.02, 0)
    prediction[:, 3] = target[:, 3] = 0
    scores = []
    for wrong in (10 / 255, 1 / 255, 0.0):
        prediction[0, 3, :, 0, 0] = wrong
        metric = MotionSplitScores()
        metric.update(prediction, target, ["all"])
        scores.append(metric.compute()["psnr/all"].item())
    assert scores == sorted(scores)
    rest = [frame for frame in range(7) if frame != 3]
    assert scores[-1] == pytest.approx((psnr_y(prediction, target)[0, rest].sum().item() + HIGHEST) / 7)


def test_a_clip_that_is_not_finite_is_not_left_out_of_a_mean_that_would_be_better_without_it() -> None:
    metric = MotionSplitScores()
    prediction, target = batch(0.02, 0)
    metric.update(prediction, target, ["all"])
    prediction[0, 3, 0, 0, 0] = torch.nan
    metric.update(prediction, target, ["all"])
    assert metric.compute()["psnr/mean"].isnan()


def test_a_clip_whose_frames_are_plain_but_of_different_colours_counts() -> None:
    """The brightness of frames in between is not trivial."""
    fade = torch.linspace(0, 1, 7).mul(255).round().div(255).view(1, 7, 1, 1, 1).expand(1, 7, 3, 16, 16)
    metric = MotionSplitScores()
    metric.update(fade.flip(1), fade, ["all"])
    assert metric.compute()["psnr/all"] < 20


def test_a_clip_whose_truth_is_of_one_colour_does_not_count() -> None:
    """Predicted (almost) exactly, as black frames are, it would outweigh all other clips."""
    metric = MotionSplitScores()
    prediction, target = batch(0.02, 0)
    metric.update(prediction, target, ["all"])
    alone = metric.compute()["psnr/mean"]
    metric.update(torch.rand_like(target), torch.zeros_like(target) + torch.tensor([0.1, 0, 0]).view(3, 1, 1), ["all"])
    assert metric.compute()["psnr/mean"] == alone
