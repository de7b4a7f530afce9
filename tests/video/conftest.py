"""What the tests of video share: a stub network and sources of frames."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stvsr.models.requirements import InputRequirements, Network


class Repeat(Network):
    """Costs nothing: each pixel four times in each direction, each frame between two as the one before."""

    requirements = InputRequirements(multiple_of=4, minimum_frames=2)

    def forward(self, lr: Tensor) -> Tensor:
        self.requirements.check(lr)
        large = lr.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
        doubled: Tensor = large.repeat_interleave(2, dim=1)[:, :-1]
        return doubled


@pytest.fixture
def stub() -> Callable[[], Network]:
    return lambda: Repeat().eval()


@pytest.fixture
def noise() -> Callable[..., list[Tensor]]:
    """Frames of one scene that differ from each other: a soft picture that moves a little."""

    def make(frames: int, height: int = 16, width: int = 20, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 3 + height // 8, 3 + (width + frames) // 8, generator=generator)
        soft = torch.nn.functional.interpolate(coarse, size=(height, width + frames), mode="bicubic")[0]
        picture = (soft.clamp(0, 1) * 255).to(torch.uint8)
        return [picture[..., first : first + width].contiguous() for first in range(frames)]

    return make
