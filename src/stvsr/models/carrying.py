"""Layers that pass through what they are given: what the starts of a training that do not begin at noise share."""

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.alignment import AlignedFusion, DeformableSampling, PCDAlignment
from stvsr.models.blocks import LEAKY_SLOPE, start_as_he
from stvsr.models.propagation import AlignedConvLSTM, Bidirectional, ConvLSTM, NoPropagation

STATE_GAIN = 0.1
"""What the candidate of a ConvLSTM takes of the frame: so little that both tanh are straight lines there."""

FORGET = -4.0
"""Bias of the forget gate before the sigmoid: each state carries its own frame, not earlier ones."""

UNTRAINED_GATE = 0.5
"""A gate, or a sampling mask, of which nothing is known yet: sigmoid(0)."""

CONTRAST = 4.0
"""By how much the first convolution towards offsets raises what is left of a picture without its mean."""


@torch.no_grad()
def carry_through(propagation: nn.Module, carried: Tensor) -> float:
    """Lets the states of a recurrence carry some channels of what it is given.

    Args:
        propagation: any of `stvsr.models.propagation`.
        carried: indices of the channels, `(k,)`.

    Returns:
        The gain by which the next layer makes the states what they were given; 1 of a `Bidirectional`, which does that.

    Raises:
        InvalidInput: a recurrence of another kind.
    """
    if isinstance(propagation, NoPropagation):
        return 1.0
    recurrence = propagation.recurrence if isinstance(propagation, Bidirectional) else propagation
    if not isinstance(recurrence, ConvLSTM | AlignedConvLSTM):
        raise InvalidInput(
            f"{type(recurrence).__name__}: carry_through does not know how its states carry a frame; add "
            "blended_start=false, or teach it (stvsr/models/carrying.py)"
        )
    gates = recurrence.cell.gates
    channels = gates.out_channels // 4
    i, f, o, g = (carried + gate * channels for gate in range(4))  # in the order of `ConvLSTMCell`
    for gate in (i, f, o, g):
        clear(gates, gate)
    gates.weight[g, carried, 1, 1] = STATE_GAIN
    if isinstance(recurrence, AlignedConvLSTM):
        clear(recurrence.align_cell.fuse, carried)
    else:
        assert gates.bias is not None
        gates.bias[f] = FORGET
    # One input gate, one output gate.
    gain = 1 / (STATE_GAIN * UNTRAINED_GATE * UNTRAINED_GATE)
    if not isinstance(propagation, Bidirectional):
        return gain
    pass_through(propagation.fuse, carried, carried, carried + channels, gain=gain / 2)
    return 1.0


@torch.no_grad()
def offsets_see_pictures(network: nn.Module) -> None:
    """Starts anew what predicts offsets, so that there is something in it that they can follow.

    By PyTorch's default a signal fades by half from one convolution to the next: behind a pyramid and three
    convolutions there are biases and hardly a picture, and in a short training offsets stay at hundredths of a pixel.
    Here these convolutions keep the size of what they are given, and the first that sees both maps sees contrast alone.

    Args:
        network: with alignments in it.
    """
    for part in network.modules():
        if isinstance(part, AlignedFusion):
            _keep_signal(part.pyramid)
        elif isinstance(part, PCDAlignment):
            _see_contrast(part)


def clear(layer: nn.Conv2d | DeformableSampling, outputs: Tensor) -> None:
    """Nothing goes to some outputs of a layer; a gradient comes from them nevertheless."""
    layer.weight[outputs] = 0
    assert layer.bias is not None
    layer.bias[outputs] = 0


def pass_through(layer: nn.Conv2d | DeformableSampling, outputs: Tensor, *inputs: Tensor, gain: float) -> None:
    """Each of some outputs of a layer is its input, or the sum of its inputs, at the same place, times a gain."""
    clear(layer, outputs)
    middle = layer.weight.shape[-1] // 2
    for each in inputs:
        layer.weight[outputs, each, middle, middle] = gain


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
        start_as_he(conv, slope=LEAKY_SLOPE)
