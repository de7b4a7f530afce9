"""PSNR and SSIM agree with scikit-image for each frame, batched or not."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stvsr.errors import InvalidInput
from stvsr.evaluation.metrics import frame_scores, luma, psnr_y, ssim_y

TOLERANCE = 1e-6


def frames(*shape: int, seed: int = 0) -> np.ndarray:
    """Smooth RGB frames, 8-bit levels in [0, 1], that span the whole range."""
    walk = np.random.default_rng(seed).standard_normal(shape).cumsum(-1).cumsum(-2)
    walk -= walk.min(axis=(-3, -2, -1), keepdims=True)
    return np.round(walk / walk.max(axis=(-3, -2, -1), keepdims=True) * 255) / 255


def reference(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Both metrics of one frame `(3, H, W)` by scikit-image."""
    prediction = np.round(np.clip(prediction, 0, 1) * 255) / 255
    weights = np.array([65.481, 128.553, 24.966]).reshape(3, 1, 1)
    p, t = (16 + (weights * image).sum(axis=0) for image in (prediction, target))
    psnr = peak_signal_noise_ratio(t, p, data_range=255)
    _, ssim_map = structural_similarity(
        t, p, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    # scikit-image's window has 11 taps at sigma 1.5; its map is valid 5 pixels from the border.
    return psnr, ssim_map[5:-5, 5:-5].mean()


@pytest.mark.parametrize("shape", [(3, 64, 80), (2, 3, 33, 47), (2, 7, 3, 16, 16)], ids=["frame", "clip", "batch"])
@pytest.mark.parametrize("noise", [0.003, 0.03, 0.3])
def test_metrics_are_scikit_images(shape: tuple[int, ...], noise: float) -> None:
    target = frames(*shape)
    # Exceeds [0, 1] on both sides, so that clamping is tested too.
    prediction = target + np.random.default_rng(1).standard_normal(shape) * noise
    psnr, ssim = (metric(torch.from_numpy(prediction), torch.from_numpy(target)) for metric in (psnr_y, ssim_y))
    assert psnr.shape == ssim.shape == torch.Size(shape[:-3])
    expected = [
        reference(p, t)
        for p, t in zip(prediction.reshape(-1, *shape[-3:]), target.reshape(-1, *shape[-3:]), strict=True)
    ]
    for i, (expected_psnr, expected_ssim) in enumerate(expected):
        assert psnr.reshape(-1)[i].item() == pytest.approx(expected_psnr, abs=TOLERANCE)
        assert ssim.reshape(-1)[i].item() == pytest.approx(expected_ssim, abs=TOLERANCE)


def test_psnr_of_rgb_is_scikit_images() -> None:
    target = frames(2, 3, 33, 47)
    prediction = np.clip(
        np.round((target + np.random.default_rng(1).standard_normal(target.shape) * 0.03) * 255), 0, 255
    )
    ours = frame_scores(torch.from_numpy(prediction / 255), torch.from_numpy(target), ["psnr_rgb"])["psnr_rgb"]
    for i in range(2):
        expected = peak_signal_noise_ratio(np.round(target[i] * 255), prediction[i], data_range=255)
        assert ours[i].item() == pytest.approx(expected, abs=TOLERANCE)


def test_uint8_frames_score_as_the_floating_point_frames_they_stand_for() -> None:
    target, prediction = (torch.from_numpy((frames(2, 3, 32, 32, seed=i) * 255).astype(np.uint8)) for i in (0, 1))
    as_uint8 = frame_scores(prediction, target)
    as_float = frame_scores(prediction.float() / 255, target.float() / 255)
    assert {name: values.tolist() for name, values in as_uint8.items()} == {
        name: values.tolist() for name, values in as_float.items()
    }


def test_float32_frames_score_as_float64_frames_do() -> None:
    target = torch.from_numpy(frames(3, 32, 32))
    prediction = (target + 0.02).clamp(0, 1)
    for metric in (psnr_y, ssim_y):
        assert metric(prediction.float(), target.float()).item() == pytest.approx(
            metric(prediction, target).item(), abs=TOLERANCE
        )


def test_prediction_is_rounded_to_8_bit_as_a_saved_frame_is() -> None:
    target = torch.from_numpy(frames(3, 32, 32))
    assert psnr_y(target + 0.4 / 255, target).isinf()
    assert psnr_y(target + 0.6 / 255, target).isfinite()


def test_equal_frames_score_infinity_and_one() -> None:
    target = torch.from_numpy(frames(3, 32, 32))
    assert psnr_y(target, target).item() == float("inf")
    assert ssim_y(target, target).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("height", "band"), [(11, 1), (40, 16), (43, 32), (44, 7)])
def test_bands_of_rows_score_as_whole_frames_do(height: int, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, target = (torch.from_numpy(frames(2, 3, height, 30, seed=seed)) for seed in (0, 1))
    expected = frame_scores(prediction, target)
    monkeypatch.setattr("stvsr.evaluation.metrics.BAND", band)
    for name, scores in frame_scores(prediction, target).items():
        assert torch.equal(scores, expected[name])


@pytest.mark.parametrize("which", ["prediction", "target"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_frame_that_is_not_finite_has_no_score_and_the_others_keep_theirs(value: float, which: str) -> None:
    target = torch.from_numpy(frames(3, 3, 32, 32)).float()
    prediction = (target + 0.02).clamp(0, 1)
    expected = frame_scores(prediction, target)
    {"prediction": prediction, "target": target}[which][1, 2, 5, 7] = value
    for name, scores in frame_scores(prediction, target).items():
        assert scores[1].isnan()
        assert torch.equal(scores[[0, 2]], expected[name][[0, 2]])


@pytest.mark.parametrize(
    ("colour", "expected"),
    [((0, 0, 0), 16.0), ((1, 1, 1), 235.0), ((1, 0, 0), 81.481), ((0, 1, 0), 144.553), ((0, 0, 1), 40.966)],
)
def test_luma_is_bt601_studio_range_of_rgb(colour: tuple[float, ...], expected: float) -> None:
    frame = torch.tensor(colour, dtype=torch.float64).view(3, 1, 1)
    assert luma(frame).item() == pytest.approx(expected)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
@pytest.mark.parametrize(("p", "t"), [((3, 16, 16), (3, 16, 17)), ((1, 16, 16), (1, 16, 16)), ((16, 16), (16, 16))])
def test_shapes_that_are_not_rgb_frames_of_one_size_are_refused(metric, p, t) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput, match="expected the same"):
        metric(torch.rand(*p), torch.rand(*t))


def test_other_numbers_and_other_metrics_are_refused() -> None:
    frames = torch.zeros(3, 16, 16)
    with pytest.raises(InvalidInput, match=r"prediction torch\.int64 and target torch\.float32: expected uint8, or"):
        psnr_y(frames.long(), frames)
    with pytest.raises(InvalidInput, match="expected some of psnr_y, ssim_y, psnr_rgb"):
        frame_scores(frames, frames, ["psnr"])


def test_frames_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(InvalidInput, match="10x16; SSIM needs at least 11x11"):
        ssim_y(torch.rand(3, 16, 10), torch.rand(3, 16, 10))


def test_scores_do_not_depend_on_the_number_of_threads() -> None:
    """Processes that share an evaluation have fewer threads each. Frames are large, as only large sums are split."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 256, (2, 3, 256, 448), dtype=torch.uint8, generator=generator)
    prediction = torch.randint(0, 256, target.shape, dtype=torch.uint8, generator=generator)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append({name: values.tolist() for name, values in frame_scores(prediction, target).items()})
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


def test_truth_beyond_0_to_1_is_refused_and_a_prediction_beyond_the_range_is_clamped() -> None:
    prediction, target = torch.rand(3, 16, 16) * 3 - 1, torch.rand(3, 16, 16)
    assert psnr_y(prediction, target) == psnr_y(prediction.clamp(0, 1), target)
    for wrong, says in ((target * 255, r".* to 2\d\d"), (target * 2 - 1, r"-0\.9\d* to ")):
        with pytest.raises(InvalidInput, match=rf"target values are {says}.*expected \[0, 1\]: divide 8-bit values by"):
            psnr_y(prediction, wrong)


def test_arrays_are_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInput, match=r"of ndarray and Tensor; expected torch\.Tensor: use torch\.from_numpy"):
        psnr_y(np.zeros((3, 16, 16)), torch.zeros(3, 16, 16))  # type: ignore[arg-type]
