"""Optional metrics: what they need is said, and what they answer makes sense."""

import sys

import pytest
import torch

from conftest import moving_frames
from stvsr.errors import InvalidInput
from stvsr.evaluation import perceptual

CPU = torch.device("cpu")
TRUTH = moving_frames(7, (96, 128), speed=2)
NOISE = torch.randint(-40, 41, TRUTH.shape, generator=torch.Generator().manual_seed(0))
NOISY = (TRUTH.int() + NOISE).clamp(0, 255).to(torch.uint8)


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


def test_lpips_is_smaller_for_the_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a random backbone, as its weights come from the network; even that tells noise from truth."""
    lpips = pytest.importorskip("lpips", reason='needs pip install ".[perceptual]"')
    original = lpips.LPIPS
    monkeypatch.setattr(lpips, "LPIPS", lambda **arguments: original(**arguments, pnet_rand=True))
    with torch.inference_mode():
        measure = perceptual.lpips(CPU)
        same, noisy = measure(TRUTH, TRUTH), measure(NOISY, TRUTH)
    assert len(noisy) == 7
    assert same == pytest.approx([0.0] * 7, abs=1e-6)
    assert all(value > 1e-4 for value in noisy)


def test_vmaf_is_near_100_for_the_truth_and_less_for_the_worse() -> None:
    pytest.importorskip("vmaf_torch", reason='needs pip install ".[perceptual]"')
    with torch.inference_mode():
        measure = perceptual.vmaf(CPU)
        same, noisy = measure(TRUTH, TRUTH), measure(NOISY, TRUTH)
    assert len(noisy) == 7
    # The first frame of a window has no motion, and VMAF then gives less than 100 for the truth itself.
    assert all(value > 95 for value in same)
    assert all(b < a - 5 for a, b in zip(same, noisy, strict=True))
