"""A start of training at an enlarged, blended picture instead of noise.

From random weights the network first has to learn what an image is: the reconstruction adds no upsampled input
(Sec. 3.3), and what the alignments sample means nothing yet, so offsets have nothing to follow. Here some channels
carry the LR frames through the untrained network: every layer hands them on, a missing frame gets the mean of its
neighbours, and the end enlarges them. Offsets start at zero all the same, but their gradient is that of a picture
from the first step on.

What predicts offsets starts anew as well. By PyTorch's default a signal fades by half from one convolution to the next:
behind a pyramid and three convolutions there are biases and hardly a picture, and in a short training offsets stay
at hundredths of a pixel. Here these convolutions keep the size of what they are given, and the first that sees
both maps sees contrast alone. Every other weight keeps its random start, and the network is what it was.

Not in the paper; for short trainings.
"""

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.alignment import AlignedFusion, DeformableSampling, PCDAlignment
from stvsr.models.blocks import LEAKY_SLOPE, ResidualBlock
from stvsr.models.propagation import Bidirectional, ConvLSTM, DeformableConvLSTM, NoPropagation
from stvsr.models.zooming_slow_mo import ZoomingSlowMo

COLOURS = 3

STATE_GAIN = 0.1
"""What the candidate of a ConvLSTM takes of the frame: so little that both tanh are straight lines there."""

FORGET = -4.0
"""Before sigmoid: what frame a state carries is that of its step, not those before it."""

OPEN = 0.5
"""A gate, or a sampling mask, of which nothing is known yet: sigmoid(0)."""

CONTRAST = 4.0
"""By how much the first convolution towards offsets raises what is left of a picture without its mean."""

TAPS = ((5 / 32, 15 / 16, -3 / 32), (-3 / 32, 15 / 16, 5 / 32))
"""A parabola through three pixels, a quarter of a pixel before and after the middle one: what x2 needs."""


@torch.no_grad()
def start_at_blended_frames(network: nn.Module) -> None:
    """Changes untrained weights so that the network enlarges given frames and the mean of neighbours.

    Args:
        network: any of the variants (a) to (e), as it was built.

    Raises:
        InvalidInput: it is another network, or a narrower one than the frames need.
    """
    if not isinstance(network, ZoomingSlowMo):
        raise InvalidInput(
            f"blended_start=true with {type(network).__name__}; expected the one-stage network: add blended_start=false"
        )
    channels = network.features.head.out_channels
    if channels < 2 * COLOURS:
        raise InvalidInput(
            f"blended_start=true with {channels} channels; expected at least {2 * COLOURS}: add blended_start=false"
        )
    # Every other one, so that each group of the deformable convolutions has some.
    carried = torch.arange(0, 2 * COLOURS * (channels // (2 * COLOURS)), 2)

    _hand_on(network.features.head, carried, torch.arange(len(carried)) % COLOURS, gain=1.0)
    for part in network.modules():
        if isinstance(part, ResidualBlock):
            _clear(part.conv2, carried)
        elif isinstance(part, AlignedFusion):
            _keep_signal(part.pyramid)
        elif isinstance(part, PCDAlignment):
            _see_contrast(part)
    interpolation = network.interpolation.fusion
    assert isinstance(interpolation, AlignedFusion)
    for alignment in (interpolation.align_first, interpolation.align_second):
        if isinstance(alignment, PCDAlignment):
            _hand_on(alignment.sample1, carried, carried, gain=1 / OPEN)
        else:
            _hand_on(alignment.conv1, carried, carried, gain=1.0)
        _hand_on(alignment.merge1, carried, carried, gain=1.0)
    _hand_on(interpolation.fuse, carried, carried, gain=0.5)
    _hand_on(interpolation.fuse, carried, carried + channels, gain=0.5, clear=False)

    gain = _through_propagation(network.propagation, carried, channels)
    end = network.reconstruction
    for up in (end.up1, end.up2):
        _enlarge(up, carried, gain=gain)
        gain = 1.0
    _hand_on(end.conv, carried, carried, gain=1.0)
    _clear(end.tail, torch.arange(COLOURS))
    for colour in range(COLOURS):
        copies = carried[colour::COLOURS]
        end.tail.weight[colour, copies, 1, 1] = 1 / len(copies)


def _through_propagation(propagation: nn.Module, carried: Tensor, channels: int) -> float:
    """Lets the states carry the frames; what the reconstruction has to multiply them by."""
    if isinstance(propagation, NoPropagation):
        return 1.0
    recurrence = propagation.recurrence if isinstance(propagation, Bidirectional) else propagation
    assert isinstance(recurrence, ConvLSTM | DeformableConvLSTM)
    gates = recurrence.cell.gates
    for gate in range(4):
        _clear(gates, carried + gate * channels)
    gates.weight[carried + 3 * channels, carried, 1, 1] = STATE_GAIN
    if isinstance(recurrence, DeformableConvLSTM):
        _clear(recurrence.align_cell.fuse, carried)
    else:
        assert gates.bias is not None
        gates.bias[carried + channels] = FORGET
    # One input gate, one output gate.
    gain = 1 / (STATE_GAIN * OPEN * OPEN)
    if not isinstance(propagation, Bidirectional):
        return gain
    _hand_on(propagation.fuse, carried, carried, gain=gain / 2)
    _hand_on(propagation.fuse, carried, carried + channels, gain=gain / 2, clear=False)
    return 1.0


def _see_contrast(alignment: PCDAlignment) -> None:
    """Offsets depend on what the two maps show from the start on, and not on how bright it is."""
    for convs in (alignment.offset1, alignment.offset2, alignment.offset3):
        _keep_signal(convs)
        first = convs[0].weight
        assert isinstance(first, Tensor)
        first.copy_(CONTRAST * (first - first.mean(dim=(2, 3), keepdim=True)))


def _keep_signal(convs: nn.Module) -> None:
    """Convolutions that are followed by LeakyReLU give what is as large as what they are given."""
    for conv in convs.children():
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        nn.init.kaiming_normal_(conv.weight, a=LEAKY_SLOPE, nonlinearity="leaky_relu")
        nn.init.zeros_(conv.bias)


def _clear(layer: nn.Conv2d | DeformableSampling, outputs: Tensor) -> None:
    """Nothing goes to some outputs of a layer; a gradient comes from them nevertheless."""
    layer.weight[outputs] = 0
    assert layer.bias is not None
    layer.bias[outputs] = 0


def _hand_on(
    layer: nn.Conv2d | DeformableSampling, outputs: Tensor, inputs: Tensor, *, gain: float, clear: bool = True
) -> None:
    """Some outputs of a layer are one input each, where they are, times a gain."""
    if clear:
        _clear(layer, outputs)
    middle = layer.weight.shape[-1] // 2
    layer.weight[outputs, inputs, middle, middle] = gain


def _enlarge(conv: nn.Conv2d, carried: Tensor, *, gain: float) -> None:
    """Some outputs of a convolution are, after PixelShuffle x2, their inputs at twice the size."""
    taps = torch.tensor(TAPS)
    for row in range(2):
        for column in range(2):
            outputs = 4 * carried + 2 * row + column
            _clear(conv, outputs)
            conv.weight[outputs, carried] = gain * torch.outer(taps[row], taps[column])
