"""Optional metrics: errors name what is missing, and the values are plausible."""

import sys

import pytest
import torch
from torch import Tensor

from conftest import moving_frames
from stvsr.errors import InvalidInput
from stvsr.evaluation import perceptual

CPU = torch.device("cpu")
TRUTH = moving_frames(7, (96, 128), speed=2)
NOISE = torch.randint(-40, 41, TRUTH.shape, generator=torch.Generator().manual_seed(0))
NOISY_FRAME = 3
NONE = TRUTH[:0]


def with_noise(noise: Tensor) -> Tensor:
    return (TRUTH.int() + noise).clamp(0, 255).to(torch.uint8)


NOISY = with_noise(NOISE)
ONE_NOISY = torch.where(torch.arange(7).view(7, 1, 1, 1) == NOISY_FRAME, NOISY, TRUTH)


def watch(monkeypatch: pytest.MonkeyPatch, package: str, network: str, **forced: bool) -> list[Tensor]:
    """A list that collects the images given to the network of an optional package."""
    module = pytest.importorskip(package, reason='needs pip install ".[perceptual]"')
    original, given = getattr(module, network), []

    def watched(**arguments: object) -> torch.nn.Module:
        torch.manual_seed(0)
        made: torch.nn.Module = original(**arguments, **forced)
        made.register_forward_pre_hook(lambda _, images: given.extend(images))
        return made

    monkeypatch.setattr(module, network, watched)
    return given


@pytest.mark.parametrize(("name", "package"), [("lpips", "lpips"), ("vmaf", "vmaf_torch")])
def test_a_missing_package_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=r'not installed; run make install, or .* pip install "\.\[perceptual\]"'):
        perceptual.EXTRAS[name](CPU)


def test_weights_that_cannot_be_downloaded_are_named_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    lpips = pytest.importorskip("lpips", reason='needs pip install ".[perceptual]"')

    def no_network(**arguments: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(lpips, "LPIPS", no_network)
    with pytest.raises(InvalidInput, match=r"alexnet-owt-7be5be79\.pth of torchvision there") as caught:
        perceptual.lpips(CPU)
    assert "no route to host" in str(caught.value)


def test_lpips_is_of_each_frame_and_smaller_for_the_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone is random, as its weights need a download; even so it tells noise from truth."""
    given = watch(monkeypatch, "lpips", "LPIPS", pnet_rand=True)
    with torch.inference_mode():
        measure = perceptual.lpips(CPU)
        noisy, less_noisy, one_noisy = (measure(p, TRUTH, NONE) for p in (NOISY, with_noise(NOISE // 2), ONE_NOISY))
    # The network of LPIPS expects values from -1 to 1.
    torch.testing.assert_close(given[:2], [NOISY / 127.5 - 1, TRUTH / 127.5 - 1])
    assert len(noisy) == 7
    assert all(0 < less < more for less, more in zip(less_noisy, noisy, strict=True))
    assert one_noisy[NOISY_FRAME] > 1e-4
    assert [*one_noisy[:NOISY_FRAME], *one_noisy[NOISY_FRAME + 1 :]] == pytest.approx([0.0] * 6, abs=1e-6)


def test_vmaf_is_of_each_frame_and_near_100_for_the_truth_and_less_for_the_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch(monkeypatch, "vmaf_torch", "VMAF")
    given: list[Tensor] = []
    with torch.inference_mode():
        measure = perceptual.vmaf(CPU)
        (model,) = (cell.cell_contents for cell in measure.__closure__)  # type: ignore[attr-defined]
        watched = model.compute_adm_score
        monkeypatch.setattr(model, "compute_adm_score", lambda *images: given.extend(images) or watched(*images))
        noisy, same, one_noisy = (measure(prediction, TRUTH, NONE) for prediction in (NOISY, TRUTH, ONE_NOISY))
        usual = model(*given[:2]).flatten().tolist()
        parts = [*measure(NOISY[:3], TRUTH[:3], NONE), *measure(NOISY[3:], TRUTH[3:], TRUTH[2:3])]
    # The reference comes first: VMAF takes motion from it and ignores detail that only the prediction has.
    weights = torch.tensor([65.481, 128.553, 24.966]).view(3, 1, 1) / 255
    expected = [16 + (frames * weights).sum(1, keepdim=True) for frames in (TRUTH, NOISY)]
    torch.testing.assert_close(given[:2], expected)
    assert noisy == usual
    # Given the frame before, the first of a part has its motion; the last lacks the motion to the next.
    assert [*parts[:2], *parts[3:]] == pytest.approx([*noisy[:2], *noisy[3:]], abs=1e-3)
    assert parts[3] > measure(NOISY[3:], TRUTH[3:], NONE)[0] + 0.5
    assert len(noisy) == 7
    # The first frame of a clip has no motion, for which VMAF gives less than 100 even to the truth.
    assert all(value > 95 for value in same)
    assert all(b < a - 5 for a, b in zip(same, noisy, strict=True))
    assert one_noisy[NOISY_FRAME] < same[NOISY_FRAME] - 5
    one_noisy[NOISY_FRAME] = same[NOISY_FRAME]
    assert one_noisy == pytest.approx(same, abs=1e-3)
