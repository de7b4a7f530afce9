"""The embedded data: seeded scenes of moving layers whose true motion is known.

A scene is a background and two to four objects in front of it. Each is a painted surface (`textures.py`) that moves
(`motion.py`). A frame samples each surface once, and the true flow is where the motion takes each point by the
next frame.

Splits: slow, medium and fast as in the paper's Table 1, by the mean true displacement of what is visible. A clip
draws a target within its split, and one factor, the scene's clock, is set to meet it.

Conventions: x to the right, y down, HR pixels, pixel centres at whole numbers; time counts frames from the
middle of the clip. A scene is a pure function of seed, index and size, bit for bit, in every process.
Limits: no shadows, blur, noise or change of light: motion and occlusion alone explain what frames show.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stvsr.config import check_int
from stvsr.data.clip import FRAMES, MOTION_SPLITS, SCALE, Footage
from stvsr.data.motion import Motion
from stvsr.data.opencv import cv2
from stvsr.data.textures import DENSITY, Array, cut_out, sample, surface
from stvsr.errors import InvalidInput

MOTION_RANGES = {"slow": (0.2, 1.5), "medium": (1.5, 4.0), "fast": (4.0, 9.0)}
"""Mean true displacement of a split's clips, HR pixels per frame, at any frame size: a small frame is a crop.

The limits between splits are about a third of an LR pixel and one: to a network, medium motion is sub-pixel, fast not.
"""

TARGET_MARGIN = 0.08
"""Targets keep this fraction off a range's ends: the clock is set by a grid of points, not by every pixel."""

PROBES = 32
"""Points per axis at which a scene is probed: the mean over them is within 2 % of that over every pixel."""

CLOCK_STEPS = 3
"""Corrections of the clock; displacement is nearly proportional to it, so a fourth would change nothing."""

MIN_SIDE = 32
"""Shortest side of a frame, HR pixels: in fewer than 8 x 8 LR pixels nothing is left to see."""


@dataclass(frozen=True)
class Scene:
    """What moves and what hides what, before anything is painted; layers from back to front.

    Attributes:
        motions: one per layer.
        opacities: one per layer, `(rows, columns)` texels in [0, 1]; one opaque texel for the background.
    """

    motions: tuple[Motion, ...]
    opacities: tuple[Array, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, height: int, width: int, frames: int, target: float) -> "Scene":
        """Draws a scene whose visible surfaces move by `target` HR pixels per frame on average."""
        half = (frames - 1) / 2
        centre = ((width - 1) / 2, (height - 1) / 2)
        speed = float(rng.uniform(0.3, 1.0))
        reach = float(np.hypot(*centre))
        motions = [Motion.draw(rng, position=centre, angle=0.0, reach=reach, speed=speed, half=half)]
        opacities = [np.ones((1, 1), np.float32)]
        for _ in range(int(rng.integers(2, 5))):
            radius = float(rng.uniform(0.16, 0.4)) * min(height, width)
            x, y = rng.uniform((0.1, 0.1), (0.9, 0.9)) * (width, height)
            angle, speed = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.6, 1.8))
            motions.append(Motion.draw(rng, position=(x, y), angle=angle, reach=radius, speed=speed, half=half))
            # Room for the blur of the edge, so that the outermost texels stay empty.
            size = 2 * int(np.ceil(DENSITY * (radius + 4)))
            opacities.append(cut_out(rng, size, DENSITY * radius))
        scene = cls(tuple(motions), tuple(opacities))
        x_grid = np.linspace(0, width - 1, PROBES, dtype=np.float32)
        y_grid = np.linspace(0, height - 1, PROBES, dtype=np.float32)[:, None]
        clock = target
        for _ in range(CLOCK_STEPS):
            scene = scene.at_clock(clock)
            clock *= target / scene.mean_displacement(x_grid, y_grid, times(frames)[:-1, None, None])
        return scene.at_clock(clock)

    def at_clock(self, clock: float) -> "Scene":
        """The same scene, faster or slower."""
        return Scene(tuple(replace(motion, clock=clock) for motion in self.motions), self.opacities)

    def shares(self, x: Array, y: Array, t: Array) -> Array:
        """Share of each layer in what is seen at `x, y` at time `t`: `(layers, ..., H, W)`, summing to 1."""
        layers = [
            sample(opacity, *motion.locate(x, y, t), cv2.INTER_LINEAR)
            for motion, opacity in zip(self.motions, self.opacities, strict=True)
        ]
        shares = np.stack(layers)
        for front in range(1, len(layers)):
            shares[:front] *= 1 - layers[front]
        return shares

    def flow(self, x: Array, y: Array, t: Array) -> tuple[Array, NDArray[np.intp]]:
        """True motion, from time `t` to `t + 1`, of the surface with the largest share at `t`.

        Returns:
            Displacement x, y `(2, ..., H, W)` in HR pixels; index of that surface's layer `(..., H, W)`.
        """
        top = self.shares(x, y, t).argmax(0)
        flow = np.empty((2, *top.shape), np.float32)
        for layer, motion in enumerate(self.motions):
            x_next, y_next = motion.project(*motion.locate(x, y, t), t + np.float32(1))
            here = top == layer
            flow[0][here], flow[1][here] = (x_next - x)[here], (y_next - y)[here]
        return flow, top

    def mean_displacement(self, x: Array, y: Array, t: Array) -> float:
        """Mean length of the true motion at `x, y` from each time `t` to the next frame, HR pixels."""
        flow, _ = self.flow(x, y, t)
        return float(np.hypot(*flow).mean(dtype=np.float64))

    def paint(self, rng: np.random.Generator, height: int, width: int, frames: int) -> list[Array]:
        """Paints the surfaces: objects at the size of their cut-outs, the background as far as it comes into view."""
        x = np.linspace(0, width - 1, PROBES, dtype=np.float32)
        y = np.linspace(0, height - 1, PROBES, dtype=np.float32)[:, None]
        seen = [self.motions[0].locate(x, y, t) for t in times(frames)]
        # The grid may miss the extreme of a sway by part of a pixel, and a bicubic kernel reaches two texels.
        columns, rows = (2 * int(DENSITY * (np.abs(part).max() + 3)) for part in zip(*seen, strict=True))
        sizes = [(rows, columns), *(opacity.shape for opacity in self.opacities[1:])]
        return [surface(rng, *size) for size in sizes]

    def render(self, paints: list[Array], height: int, width: int, t: Array) -> NDArray[np.uint8]:
        """The frame at time `t`: `(H, W, 3)`."""
        x, y = screen(height, width)
        canvas = sample(paints[0], *self.motions[0].locate(x, y, t), cv2.INTER_CUBIC)
        for motion, opacity, paint in zip(self.motions[1:], self.opacities[1:], paints[1:], strict=True):
            left, right, top, bottom = motion.bounds(opacity.shape[0] / (2 * DENSITY), t)
            region = np.s_[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
            if canvas[region].size == 0:
                continue
            u, v = motion.locate(x[region[1]], y[region[0]], t)
            share = sample(opacity, u, v, cv2.INTER_LINEAR)[..., None]
            canvas[region] += share * (sample(paint, u, v, cv2.INTER_CUBIC) - canvas[region])
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def times(frames: int) -> Array:
    """The instants of a clip's frames, counted from its middle."""
    return np.arange(frames, dtype=np.float32) - np.float32((frames - 1) / 2)


def screen(height: int, width: int) -> tuple[Array, Array]:
    """Coordinates of all pixels: x `(W,)` and y `(H, 1)`, to be broadcast."""
    return np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]


class SyntheticScenes:
    """A source of clips, generated on the fly; motion splits alternate from index to index.

    Args:
        clips: number of clips, at least 1.
        height: HR pixels, a multiple of 4, at least 32.
        width: HR pixels, a multiple of 4, at least 32.
        seed: not negative; another seed gives other scenes.

    Raises:
        InvalidInput: an argument is not as described.
    """

    first_number = 1
    frames = FRAMES

    def __init__(self, *, clips: int, height: int, width: int, seed: int) -> None:
        check_int("clips", clips, least=1)
        for name, side in (("height", height), ("width", width)):
            check_int(name, side, least=MIN_SIDE)
            if side % SCALE:
                raise InvalidInput(f"{name}={side}; expected a multiple of {SCALE}: use {side - side % SCALE}")
        check_int("seed", seed, least=0)
        self.clips, self.height, self.width, self.seed = clips, height, width, seed

    def __len__(self) -> int:
        return self.clips

    def entry(self, index: int) -> tuple[str, str]:
        """Name and motion split of clip `index`."""
        split = MOTION_SPLITS[index % len(MOTION_SPLITS)]
        return f"synthetic-{split}-{index:06d}", split

    def files(self, index: int) -> list[Path]:
        """None: clips are generated."""
        return []

    def read(self, index: int, rng: np.random.Generator) -> Footage:
        """Generates clip `index`; ignores `rng`, since a scene is a pure function of seed, index and size.

        Raises:
            IndexError: there is no such clip.
        """
        return Footage(self._frames(self.scene(index), index), *self.entry(index))

    def scene(self, index: int) -> Scene:
        """What moves in clip `index`, and how; takes a few milliseconds, since nothing is painted.

        Raises:
            IndexError: there is no such clip.
        """
        if not 0 <= index < self.clips:
            raise IndexError(f"clip index {index}; expected 0 to {self.clips - 1}")
        rng = np.random.default_rng([self.seed, index, 0])
        slowest, fastest = MOTION_RANGES[self.entry(index)[1]]
        target = float(rng.uniform(slowest * (1 + TARGET_MARGIN), fastest * (1 - TARGET_MARGIN)))
        return Scene.draw(rng, self.height, self.width, self.frames, target)

    def _frames(self, scene: Scene, index: int) -> Tensor:
        # A separate random stream, so that a scene can be drawn for its motion without the cost of painting.
        rng = np.random.default_rng([self.seed, index, 1])
        paints = scene.paint(rng, self.height, self.width, self.frames)
        frames = [scene.render(paints, self.height, self.width, t) for t in times(self.frames)]
        return torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).copy())
