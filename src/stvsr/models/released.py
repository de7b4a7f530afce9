"""The authors' released weights: recognised by their tensor names, renamed to ours.

Their file is a plain state dict of variant (e), with or without `module.` before each name. Width and depths are
inferred from its tensors, so that a network of another size trained with their code loads too.
"""

from typing import Any

from torch import Tensor

from stvsr.errors import InvalidInput
from stvsr.models.weight_files import WeightFile
from stvsr.ops.deformable_cpu import TAPS

# Applied in this order. Our `AlignedFusion` is three modules of theirs: fea_L…, pcd_align, fusion.
RENAMING = (
    (r"^conv_first\.", "features.head."),
    (r"^feature_extraction\.", "features.trunk."),
    (r"^(fea_L|pcd_align|fusion)", r"interpolation.fusion.\1"),
    (r"^ConvBLSTM\.conv_1x1\.", "propagation.fuse."),
    (r"^ConvBLSTM\.forward_net\.cell_list\.0\.conv\.", "propagation.recurrence.cell.gates."),
    (r"^ConvBLSTM\.forward_net\.pcd_h\.", "propagation.recurrence.align_hidden."),
    (r"^ConvBLSTM\.forward_net\.pcd_c\.", "propagation.recurrence.align_cell."),
    (r"\.fea_L(\d)_conv1\.", r".pyramid.down\1."),
    (r"\.fea_L(\d)_conv2\.", r".pyramid.conv\1."),
    (r"\.pcd_align\.(\w+)_1\.", r".align_first.\1."),
    (r"\.pcd_align\.(\w+)_2\.", r".align_second.\1."),
    (r"\.L(\d)_offset_conv1\.", r".offset\1.0."),
    (r"\.L(\d)_offset_conv2\.", r".offset\1.1."),
    (r"\.L(\d)_offset_conv3\.", r".offset\1.2."),
    (r"\.L(\d)_dcnpack\.", r".sample\1."),
    (r"\.conv_offset_mask\.", ".offset_mask."),
    (r"\.L(\d)_fea_conv\.", r".merge\1."),
    (r"\.fusion\.(weight|bias)$", r".fuse.\1"),
    (r"^recon_trunk\.", "reconstruction.trunk."),
    (r"^upconv(\d)\.", r"reconstruction.up\1."),
    (r"^HRconv\.", "reconstruction.conv."),
    (r"^conv_last\.", "reconstruction.tail."),
)


RELEASED = WeightFile(
    name="the .pth file",
    project="github.com/Mukosame/Zooming-Slow-Mo-CVPR-2020",
    signature="ConvBLSTM.forward_net.cell_list.0.conv.weight",
    renaming=RENAMING,
)


def from_released(tensors: dict[str, Tensor], *, origin: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Converts the authors' weights to ours.

    Args:
        tensors: the file's, as `find_tensors` returns them, recognised by `RELEASED`.
        origin: the file, for messages.

    Returns:
        The model config of a matching network, and its state dict.

    Raises:
        InvalidInput: a tensor from which the network's size is read is missing.
    """
    weights = {RELEASED.rename(name): tensor for name, tensor in tensors.items()}

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise InvalidInput(f"{origin}: the authors' weights lack {name} (our name); download the file again")
        return tuple(weights[name].shape)

    def depth(trunk: str) -> int:
        return len({name.split(".")[2] for name in weights if name.startswith(f"{trunk}.trunk.")})

    channels = shape("features.head.weight")[0]
    groups = shape("interpolation.fusion.align_first.sample1.offset_mask.bias")[0] // (3 * TAPS)
    deformable = {"channels": channels, "deformable_groups": groups}
    config = {
        "_target_": "stvsr.models.zooming_slow_mo.ZoomingSlowMo",
        "channels": channels,
        "feature_blocks": depth("features"),
        "reconstruction_blocks": depth("reconstruction"),
        "interpolation": {"_target_": "stvsr.models.interpolation.DeformableInterpolation", **deformable},
        "propagation": {
            "_target_": "stvsr.models.propagation.Bidirectional",
            "channels": channels,
            "recurrence": {"_target_": "stvsr.models.propagation.DeformableConvLSTM", **deformable},
        },
    }
    return config, weights
