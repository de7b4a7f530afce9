"""Upscales frames: windows through a network, tile by tile; each output frame exactly once.

`upscale` is the whole method as a generator, for any program that has frames; `stvsr-upscale` is built on the same
`Upscaler`, and adds files, sound and the ability to resume after a kill.
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

An independent error of 60 dB costs a result of up to 33 dB, about the paper's on its hardest split, less than 0.01 dB.
"""

OnTile = Callable[[int, int], object]

FLAT = 0.02
"""Standard deviation of values in [0, 1] below which a frame is too flat to judge precision by: black, a fade."""


class Upscaler:
    """A network and how it is applied. Moves the network to the device; to be used by one thread at a time.

    Args:
        network: any network of this package.
        device: where it runs; `auto` is a GPU if there is one.
        interpolate: whether there is an output frame between two input frames.
        scale: one of `SCALES`.
        preview: whether each frame shows bicubic + blending to the left of the method.
        orientation: how finished frames are rotated upright, so that players need not; `UPRIGHT` leaves it to players.
        grid: the tiles that frames are divided into; None for whole frames. Made finer when memory runs out.
        precision: one of `PRECISIONS`; `auto` is bf16 if that is fast (on a GPU or a recent CPU) and the first tile
            that is not flat agrees with float32.

    Attributes:
        device: where it runs.
        grid: as the argument; finer once memory has run out.
        bf16: whether windows run in bfloat16; None until a tile that is not flat decides that.

    Raises:
        InvalidInput: an unknown scale or precision, a device that is not there, or bf16 on a GPU without it.
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
            lr: the same of the input frames.
        """
        swapped = self.orientation.swaps_sides
        width, height = (lr.height, lr.width) if swapped else (lr.width, lr.height)
        matrix = lr.display_matrix if self.orientation == UPRIGHT else None
        if matrix is not None:
            # Its last row moves the rotated frame, in pixels.
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
        """Makes the output frames of a window.

        Args:
            window: of the input.
            on_tile: called after each tile with the window's numbers of done and of all tiles.

        Returns:
            `(t, 3, scale*h, scale*w)`, uint8 RGB on the CPU; rotated upright, and then twice as wide with `preview`.

        Raises:
            InvalidInput: out of memory even for the smallest tile, or the network's output is not finite.
        """
        frames = window.frames
        # A scene of a single frame: the network needs a pair.
        frames = frames + frames[-1:] * max(0, self.network.requirements.minimum_frames - len(frames))
        lr = to_float(torch.stack(frames).to(self.device))[None]
        output = self._upscaled(lr, self._positions(window), on_tile)
        if window.hold and self.interpolate:
            output = torch.cat([output, output[-1:]])
        return output

    def _positions(self, window: Window) -> slice:
        """Which of the frames that a network makes of a window are output."""
        first = window.kept.start
        return slice(first, window.kept.stop) if self.interpolate else slice(first + first % 2, window.kept.stop, 2)

    def _upscaled(self, lr: Tensor, positions: slice, on_tile: OnTile) -> Tensor:
        height, width = lr.shape[-2:]
        padded = pad_to_multiple(lr, self.network.requirements.multiple_of)
        networks = [BicubicBlend(), self.network] if self.preview else [self.network]
        while True:
            try:
                outputs = [self._tiled(network, padded, positions, on_tile) for network in networks]
            except (RuntimeError, MemoryError) as error:
                # After a failed kernel, cuDNN raises the error that it raises for lack of memory.
                check_answering(self.device)
                if not is_out_of_memory(error):
                    raise
                reason = one_line(error)[:100] or "out of memory"
                finer_grid = finer(self.grid, *padded.shape[-2:], multiple=self.network.requirements.multiple_of)
            else:
                outputs = [each[..., : self.scale * height, : self.scale * width] for each in outputs]
                return _concatenated([self.orientation.upright(each) for each in outputs], dim=-1)
            # Outside of the handler, in which the exception keeps tensors alive.
            if finer_grid is None:
                raise InvalidInput(
                    f"not enough memory for a tile of {width // self.grid.columns}x"
                    f"{height // self.grid.rows} pixels ({reason}); close other programs, "
                    "or use a machine with more"
                )
            self.grid = finer_grid
            if self.device.type == "cuda":
                self.network.forget()
                torch.cuda.empty_cache()

    def _tiled(self, network: Network, lr: Tensor, positions: slice, on_tile: OnTile) -> Tensor:
        """`(1, n, 3, h, w)` to finished frames `(t, 3, scale*h, scale*w)`, uint8, on the CPU."""
        height, width = lr.shape[-2:]
        vertical, horizontal = self.grid.spans(height, width, multiple=self.network.requirements.multiple_of)
        done = count(1)

        def tile(y: Span, x: Span) -> Tensor:
            output = self._tile(network, lr[..., y.pixels, x.pixels], positions)
            if network is self.network:
                on_tile(next(done), len(vertical) * len(horizontal))
            return output

        def strip(y: Span) -> Tensor:
            tiles = (tile(y, x) for x in horizontal)
            return _side_by_side(join(horizontal, tiles, dim=-1, scale=self.scale), self.scale * width)

        def finished(rows: Tensor) -> Tensor:
            return to_8bit(rows).cpu()

        # Each strip is rounded to 8 bits as soon as it is made, to save memory.
        strips = join(vertical, map(strip, vertical), dim=-2, scale=self.scale)
        # Not in a loop, whose variable would keep a strip while the next one is made.
        return _concatenated(list(map(finished, strips)), dim=-2)

    def _tile(self, network: Network, lr: Tensor, positions: slice) -> Tensor:
        """`(1, n, 3, h, w)` to the kept frames `(t, 3, scale*h, scale*w)`, float32, not yet clamped."""
        frames = self._run(network, lr)[0, positions]
        # One pass; `isfinite().all()` would take three.
        if not frames.sum().isfinite():
            raise InvalidInput("the network's output is not finite; use another checkpoint, or --precision float32")
        if self.scale != SCALE:
            frames = bicubic(frames.clamp(0, 1), factor=self.scale / SCALE)
        return frames

    def _run(self, network: Network, lr: Tensor) -> Tensor:
        """`(1, n, 3, h, w)` to `(1, 2n-1, 3, 4h, 4w)`, float32; decides an open `bf16`."""
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
            output: Tensor = network(lr)
        return output.float()


def upscale(frames: Iterable[Tensor], upscaler: Upscaler) -> Iterator[Tensor]:
    """Upscales a stream of frames, scene by scene.

    Args:
        frames: any number, each `(3, h, w)`, uint8 RGB, all of one size.
        upscaler: what upscales each window.

    Yields:
        `2n-1` frames for `n` (`n` without interpolation), each `(3, H, W)`, uint8 RGB, the caller's to modify.

    Raises:
        InvalidInput: a frame of another type, shape or size; or as `Upscaler.__call__`.
    """
    for window in windows(scene_starts(_checked(frames))):
        for frame in upscaler(window):
            # A copy: tensors of inference mode cannot be modified outside of it.
            yield frame.clone()


def _checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Checks and copies frames for `upscale`: the caller may reuse their memory before a window is made."""
    first = None
    for number, frame in enumerate(frames):
        if not isinstance(frame, Tensor):
            raise InvalidInput(
                f"frame {number} is of type {type(frame).__name__}; expected torch.Tensor, uint8, (3, h, w)"
            )
        if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] != 3 or not frame.numel():
            form = f"{str(frame.dtype).removeprefix('torch.')}, {tuple(frame.shape)}"
            raise InvalidInput(f"frame {number} is {form}; expected uint8, (3, h, w), RGB from 0 to 255")
        first = frame.shape if first is None else first
        if frame.shape != first:
            (h, w), (h0, w0) = frame.shape[1:], first[1:]
            raise InvalidInput(f"frame {number} is {w}x{h}, frame 0 {w0}x{h0}; expected one size")
        yield frame.cpu().clone()


def _side_by_side(pieces: Iterable[Tensor], width: int) -> Tensor:
    """Joins pieces side by side, `width` wide in all; only one of them is held beside the whole."""
    whole, filled = None, 0
    for piece in pieces:
        if piece.shape[-1] == width:
            return piece
        if whole is None:
            whole = piece.new_empty(*piece.shape[:-1], width)
        whole[..., filled : filled + piece.shape[-1]] = piece
        filled += piece.shape[-1]
        # Freed before the next one is made.
        del piece
    assert whole is not None
    return whole


def _concatenated(pieces: list[Tensor], *, dim: int) -> Tensor:
    """Concatenates pieces; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=dim)
