"""Initial weights with which layers pass their input on, shared by `blended_start` and `grown_start`."""

import torch
from torch import Tensor, nn

from stvsr.errors import InvalidInput
from stvsr.models.alignment import AlignedFusion, DeformableSampling, PCDAlignment
from stvsr.models.blocks import LEAKY_SLOPE, start_as_he
from stvsr.models.propagation import AlignedConvLSTM, Bidirectional, ConvLSTM, NoPropagation

STATE_GAIN = 0.1
"""Weight of the frame in a ConvLSTM's candidate: so small that both tanh are nearly linear there."""

FORGET = -4.0
"""Bias of the forget gate before the sigmoid: each state then carries its own frame, not earlier ones."""

UNTRAINED_GATE = 0.5
"""An untrained gate or sampling mask, of zero weights and bias: sigmoid(0)."""

CONTRAST = 4.0
"""Gain of the first offset convolutions, whose zero-mean kernels respond only to contrast."""


@torch.no_grad()
def carry_through(propagation: nn.Module, carried: Tensor) -> float:
    """Makes the states of a recurrence carry some channels of its input.

    Args:
        propagation: any of `stvsr.models.propagation`; changed in place.
        carried: indices of the channels, `(k,)`.

    Returns:
        The gain with which the next layer must restore the input's scale; 1 where nothing remains to be restored.

    Raises:
        InvalidInput: the recurrence is of an unknown class.
    """
    if isinstance(propagation, NoPropagation):
        return 1.0
    recurrence = propagation.recurrence if isinstance(propagation, Bidirectional) else propagation
    if not isinstance(recurrence, ConvLSTM | AlignedConvLSTM):
        raise InvalidInput(
            f"{type(recurrence).__name__}: carry_through does not support this recurrence; add blended_start=false, "
            "or extend it (stvsr/models/carrying.py)"
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
    # The input gate and the output gate each halve the signal.
    gain = 1 / (STATE_GAIN * UNTRAINED_GATE * UNTRAINED_GATE)
    if not isinstance(propagation, Bidirectional):
        return gain
    pass_through(propagation.fuse, carried, carried, carried + channels, gain=gain / 2)
    return 1.0


@torch.no_grad()
def offsets_see_pictures(network: nn.Module) -> None:
    """Initialises the layers that predict offsets anew, so that pictures reach the offsets.

    With PyTorch's default a signal halves from one convolution to the next: after a pyramid and three convolutions
    little but biases is left, and in a short training run offsets stay at hundredths of a pixel. Here these
    convolutions keep the signal's scale, and the first one that takes both maps responds to contrast alone.

    Args:
        network: whose alignments are changed in place.
    """
    for module in network.modules():
        if isinstance(module, AlignedFusion):
            _keep_signal(module.pyramid)
        elif isinstance(module, PCDAlignment):
            _see_contrast(module)


def clear(layer: nn.Conv2d | DeformableSampling, outputs: Tensor) -> None:
    """Zeroes weights and bias of some outputs of a layer; they still receive gradients."""
    layer.weight[outputs] = 0
    assert layer.bias is not None
    layer.bias[outputs] = 0


def pass_through(layer: nn.Conv2d | DeformableSampling, outputs: Tensor, *inputs: Tensor, gain: float) -> None:
    """Makes each of some outputs of a layer the input of the same place, or the sum of several, times a gain."""
    clear(layer, outputs)
    middle = layer.weight.shape[-1] // 2
    for channels in inputs:
        layer.weight[outputs, channels, middle, middle] = gain


def _see_contrast(alignment: PCDAlignment) -> None:
    """Makes offsets depend on what the two maps show from the start, but not on its brightness."""
    for convs in (alignment.offset1, alignment.offset2, alignment.offset3):
        _keep_signal(convs)
        first = convs[0].weight
        assert isinstance(first, Tensor)
        first.copy_(CONTRAST * (first - first.mean(dim=(2, 3), keepdim=True)))


def _keep_signal(convs: nn.Module) -> None:
    """Initialises convolutions that are followed by LeakyReLU so that they keep the signal's scale."""
    for conv in convs.children():
        assert isinstance(conv, nn.Conv2d)
        start_as_he(conv, slope=LEAKY_SLOPE)
