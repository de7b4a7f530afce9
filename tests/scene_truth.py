"""The true motion of generated scenes: a reference for measured motion and for frames."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stvsr.data.clip_sets import read_fixed
from stvsr.data.synthetic import SyntheticScenes, screen, times

FILLED = 0.99
"""Share of a pixel that a surface must cover to count as alone there; at an edge two colours mix."""


@dataclass(frozen=True)
class Truth:
    """What a clip shows and how it truly moves.

    Attributes:
        frames: `(t, 3, H, W)`, uint8, as `SyntheticScenes.read` gives them.
        flow: `(t-1, 2, H, W)`, float32: displacement x, y of the uppermost surface to the next frame.
        visible: `(t-1, H, W)`, bool: that surface alone fills the pixel and its counterpart a frame later.
    """

    frames: Tensor
    flow: Tensor
    visible: Tensor


def truth_of(scenes: SyntheticScenes, index: int) -> Truth:
    """Makes clip `index` together with its true flow and visibility."""
    scene, (x, y) = scenes.scene(index), screen(scenes.height, scenes.width)
    flows, masks = [], []
    for t in times(scenes.frames)[:-1]:
        flow, top = scene.flow(x, y, t)
        x_next, y_next = x + flow[0], y + flow[1]
        alone = np.stack([scene.shares(x, y, t), scene.shares(x_next, y_next, t + np.float32(1))])
        filled = (np.take_along_axis(alone, top[None, None], 1) >= FILLED).all((0, 1))
        inside = (x_next >= 0) & (x_next <= scenes.width - 1) & (y_next >= 0) & (y_next <= scenes.height - 1)
        flows.append(flow)
        masks.append(filled & inside)
    frames = read_fixed(scenes, index).frames
    return Truth(frames, torch.from_numpy(np.stack(flows)), torch.from_numpy(np.stack(masks)))


def motion_of(scenes: SyntheticScenes, index: int) -> float:
    """Mean true displacement in clip `index`, in HR pixels per frame, over all pixels and frames."""
    scene, (x, y) = scenes.scene(index), screen(scenes.height, scenes.width)
    return float(np.mean([scene.mean_displacement(x, y, t) for t in times(scenes.frames)[:-1]]))
