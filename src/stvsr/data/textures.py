"""Surfaces of the embedded data: what the moving layers of `synthetic.py` are painted and cut out with.

A surface is a collage with the statistics of photographs: "dead leaves" (shapes of power-law size that hide
one another: edges of every orientation, scale and contrast), patches of stripes, checks and dots, marks that
look like writing, a 1/f grain and a slow shading. A cut-out is the outline of an object, as opacity.

Conventions: surfaces have `DENSITY` texels per HR pixel, and what is drawn into them is blurred to the bandwidth
of HR pixels, so that sampling them at HR spacing does not alias. Colours are RGB in [0, 255], float32.

Reference: A. Lee, D. Mumford and J. Huang, "Occlusion models for natural images", IJCV 2001 (dead leaves).
"""

import numpy as np
from numpy.typing import NDArray

from stvsr.data.opencv import cv2

Array = NDArray[np.float32]
Image = NDArray[np.uint8]

DENSITY = 2
"""Texels per HR pixel and axis: at two, bicubic sampling is accurate at every sub-pixel phase."""

SOFTNESS = (0.5, 1.1)
"""Standard deviation of the blur after drawing, HR pixels: from sharp to a little out of focus."""

SUBTEXEL_BITS = 4
"""Outlines are placed to a sixteenth of a texel; whole texels would make small shapes jagged."""

GLYPHS = "ABEFGHKMNPRSTWXYZ23456789&?#%abdegkmqrstwy"
FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
"""Fonts of the marks that look like writing: plain, ornate and slanted."""


def noise(rng: np.random.Generator, height: int, width: int, slope: float) -> tuple[Array, Array]:
    """Two independent noise fields whose amplitude falls as `frequency ** -slope`.

    Args:
        rng: source of randomness.
        height: texels.
        width: texels.
        slope: 1 is the slope of photographs; more is smoother.

    Returns:
        Two arrays `(height, width)`, mean 0, standard deviation 1, band-limited to HR pixels.
    """
    # Made at HR density, which limits the band, then enlarged.
    rows, columns = (cv2.getOptimalDFTSize(-(-side // DENSITY)) for side in (height, width))
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :]).astype(np.float32)
    frequency[0, 0] = 1.0
    # Real and imaginary part of one complex transform are two fields for the price of one.
    spectrum = rng.standard_normal((rows, columns, 2), dtype=np.float32) * (frequency**-slope)[..., None]
    field = cv2.resize(
        cv2.dft(spectrum, flags=cv2.DFT_INVERSE), None, fx=DENSITY, fy=DENSITY, interpolation=cv2.INTER_CUBIC
    )
    mean, deviation = (moment.ravel().astype(np.float32) for moment in cv2.meanStdDev(field))
    first, second = ((field[:height, :width, i] - mean[i]) / deviation[i] for i in range(2))
    return first, second


def palette(rng: np.random.Generator, colours: int) -> Array:
    """Colours that go together: of similar hue, of high or low contrast; `(colours, 3)`."""
    contrast = rng.uniform(40, 100)
    middle = rng.uniform(20 + contrast, 235 - contrast)
    luminance = middle + contrast * rng.permutation(np.linspace(-1, 1, colours)) + rng.uniform(-10, 10, colours)
    hue = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.9, colours)
    tint = rng.gamma(2.0, 12.0, colours)
    # Three cosines a third of a turn apart change the tint and leave the mean of R, G and B alone.
    offsets = np.array([0, 2, 4]) * np.pi / 3
    rgb = luminance[:, None] + tint[:, None] * np.cos(hue[:, None] - offsets)
    return np.clip(rgb, 8, 247).astype(np.float32)


def outline(rng: np.random.Generator) -> Array:
    """A closed outline, smooth or cornered, that touches the unit circle from inside; `(points, 2)`: x, y."""
    if rng.random() < 0.5:
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        orders = np.arange(2, 6)[:, None]
        swing = rng.normal(0, 0.25, (4, 1)) / orders * np.cos(orders * angles + rng.uniform(0, 6.3, (4, 1)))
        lengths = 1 + swing.sum(0)
    else:
        corners = int(rng.integers(3, 9))
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(-0.3, 0.3, corners)
        lengths = rng.uniform(0.55, 1.0, corners)
    points = lengths * np.stack([np.cos(angles), rng.uniform(0.4, 1.0) * np.sin(angles)])
    scaled: Array = (points.T / np.hypot(*points).max()).astype(np.float32)
    return scaled


def turned(rng: np.random.Generator, points: Array, radius: float) -> Array:
    """An outline enlarged to `radius` and rotated by a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = radius * np.cos(angle), radius * np.sin(angle)
    rotated: Array = points @ np.array([[cos, sin], [-sin, cos]], np.float32)
    return rotated


def fill(canvas: Image, points: Array, colour: float | tuple[float, ...]) -> None:
    """Fills an outline, given in texels, with an anti-aliased edge, in place."""
    fixed = np.rint(points * 2**SUBTEXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour, lineType=cv2.LINE_AA, shift=SUBTEXEL_BITS)


def leaves(rng: np.random.Generator, height: int, width: int, colours: Array) -> Image:
    """Dead leaves over the whole surface; `(height, width, 3)`."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colours[0]
    smallest, largest = 3.0 * DENSITY, 0.4 * min(height, width)
    count = int(np.clip(height * width / (18 * DENSITY) ** 2, 12, 400))
    # Density of radii ~ r^-2 between the two; with so few shapes, the reference's r^-3 gives mostly specks.
    radii = 1 / rng.uniform(1 / largest, 1 / smallest, count)
    places = rng.uniform((0, 0), (width, height), (count, 2)).astype(np.float32)
    paints = np.clip(colours[rng.integers(len(colours), size=count)] + rng.normal(0, 12, (count, 3)), 0, 255)
    # A few outlines in many sizes and orientations; one for each leaf would take longer than drawing it.
    outlines = [outline(rng) for _ in range(12)]
    # Large ones first: in random order, the few large ones would bury the detail.
    for leaf in np.argsort(-radii):
        shape = turned(rng, outlines[leaf % len(outlines)], radii[leaf])
        fill(canvas, shape + places[leaf], tuple(paints[leaf].tolist()))
    return canvas


def pattern(rng: np.random.Generator, height: int, width: int, warp: Array) -> Array:
    """Stripes, checks or dots, bent by `warp`; `(height, width)` in [0, 1]."""
    period = float(np.exp(rng.uniform(np.log(6), np.log(40)))) * DENSITY
    turn = rng.uniform(0, np.pi)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    bend = warp * np.float32(rng.uniform(0, 1.5))
    wave = 2 * np.pi / period
    first = np.sin(wave * (np.cos(turn) * x + np.sin(turn) * y) + bend, dtype=np.float32)
    # A step of slope `edge` per radian crosses from 0 to 1 within about one and a half HR pixels.
    edge = 1 / (1.5 * DENSITY * wave)
    kind = rng.integers(3)
    if kind == 0:
        level = edge * (first - rng.uniform(-0.5, 0.5))
    else:
        second = np.sin(wave * (np.cos(turn) * y - np.sin(turn) * x) - bend, dtype=np.float32)
        level = 2 * edge * first * second if kind == 1 else edge * (first + second - rng.uniform(0.4, 1.0))
    clipped: Array = np.clip(level + 0.5, 0, 1).astype(np.float32)
    return clipped


def write(rng: np.random.Generator, canvas: Image, colour: Array) -> None:
    """Writes a line of glyphs somewhere on the canvas, in place."""
    height, width = canvas.shape[:2]
    text = "".join(rng.choice(list(GLYPHS), int(rng.integers(3, 9))))
    size = float(rng.uniform(0.35, 1.1)) * DENSITY / 2
    where = (int(rng.integers(-width // 8, width)), int(rng.integers(0, height + height // 8)))
    font = FONTS[rng.integers(len(FONTS))]
    cv2.putText(canvas, text, where, font, size, colour.tolist(), int(rng.integers(1, 3)), cv2.LINE_AA)


def surface(rng: np.random.Generator, height: int, width: int) -> Array:
    """Paints a surface.

    Args:
        rng: source of randomness.
        height: texels.
        width: texels.

    Returns:
        `(height, width, 3)`, RGB in [0, 255].
    """
    colours = palette(rng, int(rng.integers(4, 8)))
    canvas = leaves(rng, height, width, colours)
    grain, cloud = noise(rng, height, width, float(rng.uniform(0.9, 1.3)))
    warp = cv2.GaussianBlur(cloud, (0, 0), 8 * DENSITY)
    for _ in range(int(rng.integers(1, 4))):
        patch = np.zeros((height, width), np.uint8)
        where = rng.uniform((0, 0), (width, height)).astype(np.float32)
        fill(patch, turned(rng, outline(rng), rng.uniform(0.2, 0.5) * min(height, width)) + where, 255)
        left, top, columns, rows = cv2.boundingRect(patch)
        box = np.s_[top : top + rows, left : left + columns]
        ink, paper = colours[rng.choice(len(colours), 2, replace=False)]
        mixed = paper + pattern(rng, rows, columns, warp[box])[..., None] * (ink - paper)
        opacity = patch[box][..., None] / np.float32(255)
        canvas[box] = (canvas[box] + opacity * (mixed - canvas[box])).astype(np.uint8)
    for _ in range(max(1, height * width // (110 * DENSITY) ** 2)):
        write(rng, canvas, colours[rng.integers(len(colours))])
    shade = 1 + np.float32(0.14) * cloud
    painted = canvas * shade[..., None] + (np.float32(rng.uniform(4, 12)) * grain)[..., None]
    blurred: Array = cv2.GaussianBlur(painted, (0, 0), rng.uniform(*SOFTNESS) * DENSITY)
    return blurred.clip(0, 255)


def cut_out(rng: np.random.Generator, size: int, radius: float) -> Array:
    """Draws the shape of an object: solid, with a hole, or a fence.

    Args:
        rng: source of randomness.
        size: side of the square that holds it, texels.
        radius: how far it may reach from the centre, texels; the rest of the square stays empty.

    Returns:
        Opacity `(size, size)` in [0, 1].
    """
    canvas = np.zeros((size, size), np.uint8)
    centre = np.float32((size - 1) / 2)
    kind = rng.choice(3, p=(0.6, 0.2, 0.2))
    if kind == 2:
        bars = int(rng.integers(3, 6))
        reach = 0.7 * radius
        thickness = reach / bars * rng.uniform(0.3, 0.6)
        for offset in np.linspace(-reach + thickness, reach - thickness, bars):
            for across in (False, True) if abs(offset) > reach / 2 else (False,):
                bar = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (thickness, reach) + (offset, 0)
                fill(canvas, (bar[:, ::-1] if across else bar).astype(np.float32) + centre, 255)
    else:
        fill(canvas, turned(rng, outline(rng), radius) + centre, 255)
        if kind == 1:
            fill(canvas, turned(rng, outline(rng), rng.uniform(0.3, 0.5) * radius) + centre, 0)
    opacity = canvas.astype(np.float32) / np.float32(255)
    blurred: Array = cv2.GaussianBlur(opacity, (0, 0), SOFTNESS[0] * DENSITY)
    return blurred


def sample(texture: Array, u: Array, v: Array, interpolation: int) -> Array:
    """Values of a texture `(rows, columns[, c])` at `u, v`, `(..., H, W)` HR pixels from its centre."""
    rows, columns = texture.shape[:2]
    column = u * DENSITY + np.float32((columns - 1) / 2)
    row = v * DENSITY + np.float32((rows - 1) / 2)
    flat = (-1, u.shape[-1])
    # Cut-outs end in empty texels and the background reaches beyond the screen: replication never shows.
    sampled: Array = cv2.remap(
        texture, column.reshape(flat), row.reshape(flat), interpolation, borderMode=cv2.BORDER_REPLICATE
    )
    return sampled.reshape(*u.shape, *texture.shape[2:])
