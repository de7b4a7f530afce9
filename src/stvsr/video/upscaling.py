"""Frames in, frames out, each exactly once: windows through a network, tile by tile.

`upscale` is the whole method as a generator, for any program that has frames; `stvsr-upscale` is built on the same
`Upscaler`, and adds files, sound and the ability to go on after a kill.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from stvsr.data.clip import FRAMES, SCALE, to_8bit, to_float
from stvsr.data.degradation import bicubic
from stvsr.data.orientation import UPRIGHT, Orientation
from stvsr.data.scene_cuts import scene_starts
from stvsr.devices import check_answering, chosen_device, has_bf16, is_out_of_memory, refuses_bf16
from stvsr.errors import InvalidInput, one_line
from stvsr.graphs import Replayed
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.models.network import Network, learns, pad_to_multiple
from stvsr.video.picture import Picture
from stvsr.video.tiles import Grid, Span, finer, join
from stvsr.video.windows import Window, windows

SCALES = (SCALE, SCALE // 2)
"""Magnifications: the network's own, and half of it by bicubic downsampling afterwards."""

PRECISIONS = ("auto", "float32", "bf16")

AGREEMENT = 60.0
"""dB between bfloat16 and float32 above which bfloat16 is used.

An error of its own of 60 dB takes less than 0.01 dB from any result of up to 33 dB, the hardest split of the paper.
"""

OnTile = Callable[[int, int], object]

FLAT = 0.02
"""Standard deviation within a frame, of values in [0, 1], below which it tells nothing of precision: black, a fade."""


class Upscaler:
    """A network and how it is applied. It moves the network to its device, and belongs to one thread at a time.

    Args:
        network: any network of this package.
        device: where it runs; `auto` is a GPU if there is one.
        interpolate: whether there is an output frame between two input frames.
        scale: one of `SCALES`.
        preview: whether bicubic + blending stands at the left of each frame.
        orientation: how each finished frame is turned upright, which the player then need not do; `UPRIGHT` leaves it
            to the player.
        grid: into how many tiles frames are divided; becomes finer where the memory does not suffice.
        precision: one of `PRECISIONS`; `auto` is bf16 where it is fast, on a GPU or a recent CPU, and the first
            tile that shows something agrees with float32.

    Attributes:
        device: where it runs.
        grid: as the argument; finer after the memory did not suffice.
        bf16: whether windows run in bfloat16; None where the next tile that shows something decides that.

    Raises:
        InvalidInput: another scale or precision, a device that is not there, or bf16 on a GPU that has none.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        interpolate: bool = True,
        scale: int = SCALE,
        preview: bool = False,
        orientation: Orientation = UPRIGHT,
        grid: Grid | None = None,
        precision: str = "float32",
    ) -> None:
        if scale not in SCALES:
            raise InvalidInput(f"scale={scale!r}; expected {' or '.join(map(str, SCALES))}")
        if precision not in PRECISIONS:
            raise InvalidInput(f"precision={precision}; expected {', '.join(PRECISIONS)}")
        self.device = chosen_device(str(device))
        if precision == "bf16" and refuses_bf16(self.device):
            raise InvalidInput("precision=bf16 on a GPU without bfloat16; expected compute capability 8.0 or newer")
        self.network = Replayed(network.to(self.device).eval())
        self.interpolate = interpolate
        self.scale = scale
        self.preview = preview
        self.orientation = orientation
        self.grid = grid or Grid()
        self.bf16: bool | None = precision == "bf16"
        if precision == "auto" and self.is_learned and has_bf16(self.device):
            self.bf16 = None

    @property
    def is_learned(self) -> bool:
        """Whether the network has weights; without any it is quick."""
        return learns(self.network)

    def picture(self, lr: Picture) -> Picture:
        """What the finished frames have in common.

        Args:
            lr: the same of the input.
        """
        swapped = self.orientation.swaps_sides
        width, height = (lr.height, lr.width) if swapped else (lr.width, lr.height)
        matrix = lr.display_matrix if self.orientation == UPRIGHT else None
        if matrix is not None:
            # Its last row moves the turned frame, in pixels.
            matrix = (*matrix[:6], self.scale * matrix[6], self.scale * matrix[7], matrix[8])
        return replace(
            lr,
            width=(2 if self.preview else 1) * self.scale * width,
            height=self.scale * height,
            pixel_aspect=1 / lr.pixel_aspect if swapped else lr.pixel_aspect,
            display_matrix=matrix,
        )

    def count(self, window: Window) -> int:
        """How many frames `__call__` makes of a window."""
        return len(range(FRAMES)[self._positions(window)]) + (window.hold and self.interpolate)

    @torch.inference_mode()
    def __call__(self, window: Window, on_tile: OnTile = lambda done, tiles: None) -> Tensor:
        """The frames of a window that count.

        Args:
            window: of the input.
            on_tile: is told after each tile how many of the window are done, and how many there are.

        Returns:
            `(t, 3, scale*h, scale*w)`, uint8 RGB on the CPU; upright, and then twice as wide with `preview`.

        Raises:
            InvalidInput: the memory does not suffice for the smallest tile, or the network's answer is not finite.
        """
        frames = window.frames
        # A scene of a single frame: the network needs a pair.
        frames = frames + frames[-1:] * max(0, self.network.requirements.minimum_frames - len(frames))
        lr = to_float(torch.stack(frames).to(self.device))[None]
        made = self._in_tiles(lr, self._positions(window), on_tile)
        if window.hold and self.interpolate:
            made = torch.cat([made, made[-1:]])
        return made

    def _positions(self, window: Window) -> slice:
        """Which of the frames that a network makes of a window count."""
        first = window.kept.start
        return slice(first, window.kept.stop) if self.interpolate else slice(first + first % 2, window.kept.stop, 2)

    def _in_tiles(self, lr: Tensor, positions: slice, on_tile: OnTile) -> Tensor:
        height, width = lr.shape[-2:]
        padded = pad_to_multiple(lr, self.network.requirements.multiple_of)
        networks = [BicubicBlend(), self.network] if self.preview else [self.network]
        while True:
            try:
                made = [self._through(network, padded, positions, on_tile) for network in networks]
            except (RuntimeError, MemoryError) as error:
                # What cuDNN says where its memory does not suffice, it says after any fault.
                check_answering(self.device)
                if not is_out_of_memory(error):
                    raise
                reason = one_line(error)[:100] or "out of memory"
                smaller = finer(self.grid, *padded.shape[-2:], multiple=self.network.requirements.multiple_of)
            else:
                made = [each[..., : self.scale * height, : self.scale * width] for each in made]
                return _joined([self.orientation.upright(each) for each in made], dim=-1)
            # Outside of the handler, which keeps what was computed alive.
            if smaller is None:
                raise InvalidInput(
                    f"the memory does not suffice for a tile of {width // self.grid.columns}x"
                    f"{height // self.grid.rows} pixels ({reason}); close other programs, "
                    "or take a machine with more"
                )
            self.grid = smaller
            if self.device.type == "cuda":
                self.network.forget()
                torch.cuda.empty_cache()

    def _through(self, network: Network, lr: Tensor, positions: slice, on_tile: OnTile) -> Tensor:
        """`(1, n, 3, h, w)` to finished frames `(t, 3, scale*h, scale*w)`, uint8, on the CPU."""
        height, width = lr.shape[-2:]
        vertical, horizontal = self.grid.spans(height, width, multiple=self.network.requirements.multiple_of)
        done = count(1)

        def tile(y: Span, x: Span) -> Tensor:
            made = self._tile(network, lr[..., y.pixels, x.pixels], positions)
            if network is self.network:
                on_tile(next(done), len(vertical) * len(horizontal))
            return made

        def strip(y: Span) -> Tensor:
            tiles = (tile(y, x) for x in horizontal)
            return _in_a_row(join(horizontal, tiles, dim=-1, scale=self.scale), self.scale * width)

        def finished(rows: Tensor) -> Tensor:
            return to_8bit(rows).cpu()

        # Each strip of tiles is reduced to 8 bits as soon as it is there.
        strips = join(vertical, map(strip, vertical), dim=-2, scale=self.scale)
        # Not in a loop, whose variable would hold a strip while the next one is made.
        return _joined(list(map(finished, strips)), dim=-2)

    def _tile(self, network: Network, lr: Tensor, positions: slice) -> Tensor:
        """`(1, n, 3, h, w)` to frames `(t, 3, scale*h, scale*w)`, float32 in [0, 1]."""
        frames = self._run(network, lr)[0, positions]
        # One pass over the frames instead of three.
        if not frames.sum().isfinite():
            raise InvalidInput("the network's answer is not finite; use another checkpoint, or --precision float32")
        if self.scale != SCALE:
            frames = bicubic(frames.clamp(0, 1), factor=self.scale / SCALE)
        return frames

    def _run(self, network: Network, lr: Tensor) -> Tensor:
        """`(1, n, 3, h, w)` to `(1, 2n-1, 3, 4h, 4w)`, float32."""
        if self.bf16 is None and network is self.network:
            exact: Tensor = network(lr).float()
            if exact.std(dim=(-2, -1)).mean() < FLAT:
                return exact
            with torch.autocast(self.device.type, torch.bfloat16):
                rounded: Tensor = network(lr)
            difference = exact.clamp(0, 1) - rounded.float().clamp(0, 1)
            self.bf16 = bool(difference.square().mean() < 10 ** (-AGREEMENT / 10))
            return rounded.float() if self.bf16 else exact
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bf16)):
            made: Tensor = network(lr)
        return made.float()


def upscale(frames: Iterable[Tensor], upscaler: Upscaler) -> Iterator[Tensor]:
    """Upscales a stream of frames, scene by scene.

    Args:
        frames: each `(3, h, w)`, uint8 RGB, all of one size, as many as there are.
        upscaler: how.

    Yields:
        `2n-1` frames of `n` (`n` without interpolation), each `(3, H, W)`, uint8 RGB; they are the caller's.

    Raises:
        InvalidInput: a frame of another form, or of another size than the first; or as `Upscaler.__call__`.
    """
    for window in windows(scene_starts(_checked(frames))):
        for frame in upscaler(window):
            # What comes of inference mode could not be written to.
            yield frame.clone()


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Frames of the form that `upscale` takes, as copies: a window is made when the caller may have refilled them."""
    first = None
    for number, frame in enumerate(frames):
        if not isinstance(frame, Tensor):
            raise InvalidInput(f"frame {number} is of {type(frame).__name__}; expected torch.Tensor, uint8, (3, h, w)")
        if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] != 3 or not frame.numel():
            form = f"{str(frame.dtype).removeprefix('torch.')}, {tuple(frame.shape)}"
            raise InvalidInput(f"frame {number} is {form}; expected uint8, (3, h, w), RGB from 0 to 255")
        first = frame.shape if first is None else first
        if frame.shape != first:
            (h, w), (h0, w0) = frame.shape[1:], first[1:]
            raise InvalidInput(f"frame {number} is {w}x{h}, frame 0 {w0}x{h0}; expected one size")
        yield frame.cpu().clone()


def _in_a_row(pieces: Iterable[Tensor], width: int) -> Tensor:
    """Pieces beside each other, `width` wide in all, of which only one is held beside the whole."""
    whole, filled = None, 0
    for piece in pieces:
        if piece.shape[-1] == width:
            return piece
        if whole is None:
            whole = piece.new_empty(*piece.shape[:-1], width)
        whole[..., filled : filled + piece.shape[-1]] = piece
        filled += piece.shape[-1]
        # Not held while the next one is made.
        del piece
    assert whole is not None
    return whole


def _joined(pieces: list[Tensor], *, dim: int) -> Tensor:
    """Pieces beside each other; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=dim)
