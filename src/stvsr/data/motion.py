"""How one surface of a synthetic scene moves: translation, rotation, zoom and a smooth deformation at once.

A motion maps the screen to the surface at a continuous time,

    p = turn(t)^-1 (screen - position(t)) / zoom(t)
    surface = p + amplitude * sin(waves p + phase + beat t)

and back. The sway varies slowly over a surface, so that a fixed-point iteration inverts it as exactly as we need.

Conventions: x to the right, y down, HR pixels, pixel centres at whole numbers; time counts frames from the
middle of the clip.
"""

from dataclasses import dataclass

import numpy as np

from stvsr.data.textures import Array

LEVER = 60.0
"""Rotation, zoom and sway are spread over this length at least, HR pixels, so that small objects do not tumble."""

MAX_ZOOM = 0.15
"""Largest log zoom either way: further out, a surface would alias; further in, it would blur."""

MAX_STRETCH = 0.2
"""Largest gradient of a component of the sway; an inversion step then leaves at most 0.28 of an error."""

INVERSION_STEPS = 8
"""0.28 ** 8 of a sway of a few pixels is a ten-thousandth of a pixel."""


@dataclass(frozen=True)
class Motion:
    """How one surface moves; rates are per unit of the clock, pairs are along x and y.

    Attributes:
        position: of the surface's centre in mid-clip, HR pixels.
        velocity: HR pixels.
        bend: relative gain of speed from the middle of the clip to its end.
        angle: in mid-clip, radians.
        spin: radians.
        zoom: natural logarithm of the magnification.
        amplitude: of the sway, HR pixels.
        waves: `(2, 2)`: row i is the wave vector of component i of the sway, radians per HR pixel.
        phase: of the sway, radians.
        beat: of the sway, radians.
        clock: units per frame.
        half: frames from the middle of the clip to its end.
    """

    position: Array
    velocity: Array
    bend: Array
    angle: float
    spin: float
    zoom: float
    amplitude: Array
    waves: Array
    phase: Array
    beat: Array
    clock: float
    half: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        *,
        position: tuple[float, float],
        angle: float,
        reach: float,
        speed: float,
        half: float,
    ) -> "Motion":
        """Draws a motion that combines all four kinds.

        Args:
            rng: source of randomness.
            position: x, y of the surface's centre in mid-clip, HR pixels.
            angle: in mid-clip, radians.
            reach: how far the surface reaches around its centre, HR pixels.
            speed: length of the velocity, HR pixels per unit of the clock.
            half: frames from the middle of the clip to its end.
        """
        lever = max(reach, LEVER)
        heading = rng.uniform(0, 2 * np.pi)
        directions = rng.uniform(0, 2 * np.pi, 2)
        wavelength = lever * rng.uniform(0.7, 1.4, 2)
        waves = 2 * np.pi / wavelength[:, None] * np.stack([np.cos(directions), np.sin(directions)], 1)
        amplitude = rng.uniform(0.5, 1.0, 2) * MAX_STRETCH * wavelength / (2 * np.pi)
        spin, zoom = rng.choice((-1, 1), 2) * rng.uniform((0.15, 0.15), (0.6, 0.45)) / lever
        return cls(
            position=np.asarray(position, np.float32),
            velocity=np.asarray((speed * np.cos(heading), speed * np.sin(heading)), np.float32),
            bend=rng.uniform(-0.2, 0.2, 2).astype(np.float32),
            angle=angle,
            spin=float(spin),
            zoom=float(zoom),
            amplitude=amplitude.astype(np.float32),
            waves=waves.astype(np.float32),
            phase=rng.uniform(0, 2 * np.pi, 2).astype(np.float32),
            beat=(rng.choice((-1, 1), 2) * rng.uniform(0.02, 0.05, 2)).astype(np.float32),
            clock=1.0,
            half=half,
        )

    def locate(self, x: Array, y: Array, t: Array) -> tuple[Array, Array]:
        """Surface coordinates, HR pixels from its centre, of what is on screen at `x, y` at time `t`.

        The arguments broadcast against one another, here and in `project`.
        """
        x0, y0, cos, sin, zoom = self._pose(t)
        cos, sin = cos / zoom, sin / zoom
        p = cos * (x - x0) + sin * (y - y0)
        q = cos * (y - y0) - sin * (x - x0)
        sway_p, sway_q = self._sway(p, q, t)
        return p + sway_p, q + sway_q

    def project(self, u: Array, v: Array, t: Array) -> tuple[Array, Array]:
        """Screen coordinates at time `t` of what is at `u, v` on the surface: the inverse of `locate`."""
        p, q = u, v
        for _ in range(INVERSION_STEPS):
            sway_p, sway_q = self._sway(p, q, t)
            p, q = u - sway_p, v - sway_q
        x0, y0, cos, sin, zoom = self._pose(t)
        cos, sin = cos * zoom, sin * zoom
        return x0 + cos * p - sin * q, y0 + sin * p + cos * q

    def bounds(self, radius: float, t: Array) -> tuple[int, int, int, int]:
        """First and past-the-last column, then row, that a disc of the surface can reach at time `t`."""
        x0, y0, *_, zoom = self._pose(t)
        reach = zoom * (radius + np.hypot(*self.amplitude))
        left, top = int(np.floor(x0 - reach)), int(np.floor(y0 - reach))
        return left, int(np.ceil(x0 + reach)) + 1, top, int(np.ceil(y0 + reach)) + 1

    def _pose(self, t: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Position x, y, cosine and sine of the angle, and magnification at time `t`."""
        time = np.float32(self.clock) * t
        x0, y0 = (
            start + speed * time * (1 + bend * t / np.float32(2 * self.half))
            for start, speed, bend in zip(self.position, self.velocity, self.bend, strict=True)
        )
        angle = np.float32(self.angle) + np.float32(self.spin) * time
        # A sine of small slope: nearly linear over a short clip, bounded over a long one.
        log_zoom = np.float32(MAX_ZOOM) * np.sin(np.float32(self.zoom / MAX_ZOOM) * time)
        return x0, y0, np.cos(angle), np.sin(angle), np.exp(log_zoom)

    def _sway(self, p: Array, q: Array, t: Array) -> tuple[Array, Array]:
        time = np.float32(self.clock) * t
        along_x, along_y = (
            amplitude * np.sin(wave[0] * p + wave[1] * q + (phase + beat * time))
            for amplitude, wave, phase, beat in zip(self.amplitude, self.waves, self.phase, self.beat, strict=True)
        )
        return along_x, along_y
