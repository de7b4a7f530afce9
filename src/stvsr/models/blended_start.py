"""Initial weights with which the untrained network outputs enlarged, blended frames instead of noise.

From random weights the network first has to learn what an image is: the reconstruction adds no upsampled input
(Sec. 3.3), and the features to align mean nothing yet, so offsets have nothing to follow. Here some channels carry the
LR frames through the untrained network: every layer passes them on, a missing frame gets the mean of its neighbours,
and the last layers enlarge them. Offsets still start at zero; those of the interpolation's finest level get a
meaningful gradient in the first step, all others from the second on.

Layers that predict offsets are initialised anew as well (`carrying.offsets_see_pictures`). All other weights stay
random, and the architecture is unchanged.

Not in the paper; for short training runs.
"""

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.alignment import NaiveAlignment, PCDAlignment
from stvsr.models.blocks import ResidualBlock
from stvsr.models.carrying import UNTRAINED_GATE, carry_through, clear, offsets_see_pictures, pass_through
from stvsr.models.interpolation import FusedInterpolation
from stvsr.models.zooming_slow_mo import ZoomingSlowMo

COLOURS = 3

PARABOLA = ((5 / 32, 15 / 16, -3 / 32), (-3 / 32, 15 / 16, 5 / 32))
"""Weights for x2: the parabola through three pixels, a quarter of a pixel before and after the middle one."""


@torch.no_grad()
def start_at_blended_frames(network: nn.Module) -> None:
    """Changes untrained weights so that the network enlarges the given frames and the means of neighbours.

    Args:
        network: any of (a) to (e), untrained; changed in place.

    Raises:
        InvalidInput: the network is another one, or has too few channels.
    """
    if not isinstance(network, ZoomingSlowMo):
        raise _unsuitable(type(network).__name__, "the one-stage network")
    channels = network.features.head.out_channels
    if channels < 2 * COLOURS:
        raise _unsuitable(f"{channels} channels", f"at least {2 * COLOURS}")
    # Every other channel: with 32 or more (but for 40), each of the 8 deformable groups then carries some.
    carried = torch.arange(0, 2 * COLOURS * (channels // (2 * COLOURS)), 2)

    pass_through(network.features.head, carried, torch.arange(len(carried)) % COLOURS, gain=1.0)
    for module in network.modules():
        if isinstance(module, ResidualBlock) and module.conv2.out_channels == channels:
            clear(module.conv2, carried)
    offsets_see_pictures(network)
    if not isinstance(network.interpolation, FusedInterpolation):
        raise _unsuitable(type(network.interpolation).__name__, "a FusedInterpolation")
    fusion = network.interpolation.fusion
    for alignment in (fusion.align_first, fusion.align_second):
        if isinstance(alignment, PCDAlignment):
            pass_through(alignment.sample1, carried, carried, gain=1 / UNTRAINED_GATE)
        elif isinstance(alignment, NaiveAlignment):
            pass_through(alignment.conv1, carried, carried, gain=1.0)
        else:
            raise _unsuitable(type(alignment).__name__, "PCDAlignment or NaiveAlignment")
        pass_through(alignment.merge1, carried, carried, gain=1.0)
    pass_through(fusion.fuse, carried, carried, carried + channels, gain=0.5)

    gain = carry_through(network.propagation, carried)
    reconstruction = network.reconstruction
    for up in (reconstruction.up1, reconstruction.up2):
        _enlarge(up, carried, gain=gain)
        gain = 1.0
    pass_through(reconstruction.conv, carried, carried, gain=1.0)
    clear(reconstruction.tail, torch.arange(COLOURS))
    for colour in range(COLOURS):
        copies = carried[colour::COLOURS]
        reconstruction.tail.weight[colour, copies, 1, 1] = 1 / len(copies)


def _unsuitable(found: str, expected: str) -> InvalidInput:
    """The error for a network that cannot start from blended frames."""
    return InvalidInput(f"blended_start=true with {found}; expected {expected}: add blended_start=false")


def _enlarge(conv: nn.Conv2d, carried: Tensor, *, gain: float) -> None:
    """Makes a convolution followed by PixelShuffle x2 enlarge the carried channels, times a gain."""
    taps = torch.tensor(PARABOLA)
    for row in range(2):
        for column in range(2):
            outputs = 4 * carried + 2 * row + column
            clear(conv, outputs)
            conv.weight[outputs, carried] = gain * torch.outer(taps[row], taps[column])
