"""One video from input to output: decoding, network and encoding side by side, able to resume after a kill.

What is done lies in a hidden folder beside the output until the output is whole and gets its name. A job that was
stopped or killed finds it there and resumes; its frames are those of an undisturbed job: windows and segments depend on
the input and the settings alone, and tiles and precision are kept.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from stvsr.data.clip import FRAMES
from stvsr.data.scene_cuts import scene_starts
from stvsr.errors import InvalidInput
from stvsr.files import write_text
from stvsr.terminal import BAR
from stvsr.video.delivery import SETTINGS
from stvsr.video.prefetch import prefetched
from stvsr.video.sinks import Sink
from stvsr.video.sources import Source
from stvsr.video.tiles import Grid
from stvsr.video.upscaling import OnTile, Upscaler
from stvsr.video.windows import Window, windows

DECODED_AHEAD = 2
"""Windows that may wait for the network."""

FINISHED_AHEAD = FRAMES
"""Frames that may wait for the encoder: while it works on one window, the network makes the next."""

SLOW = 0.25
"""The longest job on a CPU, in hours, that begins without a warning."""


class Job:
    """Frames of a source through a network into a sink.

    Args:
        source: where frames come from.
        upscaler: what makes the new ones.
        sink: where they go.
        folder: for unfinished work, also of an earlier run; None if none is kept.
        fits: whether the tiles of an earlier run fit into the memory that is available now.
        say: shows the user a message.
    """

    def __init__(
        self,
        *,
        source: Source,
        upscaler: Upscaler,
        sink: Sink,
        folder: Path | None,
        fits: Callable[[Grid], bool] = lambda _: True,
        say: Callable[[str], None],
    ) -> None:
        self.source = source
        self.upscaler = upscaler
        self.sink = sink
        self.settings = None if folder is None else folder / SETTINGS
        self.fits = fits
        self.say = say
        self.count = 0
        # Each with the number of the first window that was made with it; it holds until that of the next.
        self._grids: list[tuple[int, Grid]] = []
        # The window that decided whether bfloat16 agrees with float32, and the decision.
        self._bf16_decision: tuple[int, bool] | None = None
        self._has_run = self._estimated = False
        self._read_settings()

    def run(self, expected: int | None) -> Path | None:
        """Makes all frames, with a progress bar.

        Args:
            expected: how many there will be; None if unknown.

        Returns:
            The file or folder that holds them; None for standard output.

        Raises:
            InvalidInput: the source has no frame in the requested part.
            Incomplete: the segments, old and new, do not hold each frame once.
        """
        try:
            self._fill(expected)
        except BaseException:
            self.sink.abandon()
            raise
        if not self.count:
            raise InvalidInput(f"{self.source.path}: no frame in the requested part; choose an earlier --start")
        return self.sink.finish(self.count)

    def _fill(self, expected: int | None) -> None:
        first = None
        with (
            tqdm(total=expected, unit="frame", desc=self.source.path.name, smoothing=0.05, **BAR) as bar,
            closing(prefetched(self._frames(expected, bar), FINISHED_AHEAD)) as frames,
        ):
            for window, number, frame in frames:
                if first is None:
                    # Frames of an earlier run do not count as speed.
                    first = bar.n = bar.initial = number
                    if first:
                        self.say(f"resuming after {first} frames of an earlier run")
                self.sink.write(window, number, frame)
                bar.update(number + 1 - bar.n)
            bar.update(self.count - bar.n)

    def _frames(self, expected: int | None, bar: "tqdm[Any]") -> Iterator[tuple[int, int, Tensor]]:
        """Arguments of `Sink.write` for each frame that the sink lacks; the bar counts tiles, which may take long."""
        for number, window in enumerate(prefetched(windows(self._scenes()), DECODED_AHEAD)):
            numbers = range(self.count, self.count + self.upscaler.count(window))
            if not self.sink.has(number, numbers):
                windows_left = ((expected or 0) - numbers.start) / len(numbers)
                # Time is not estimated from a window made in both precisions, which takes longer, nor for a network
                # that is not learned: decoding and encoding take the time then.
                estimating = not self._estimated and self.upscaler.bf16 is not None and self.upscaler.is_learned
                on_tile = partial(self._on_tile, bar, time.monotonic(), windows_left if estimating else None)
                for frame_number, frame in zip(numbers, self._upscaled(number, window, on_tile), strict=True):
                    yield number, frame_number, frame
            self.count = numbers.stop

    def _upscaled(self, number: int, window: Window, on_tile: OnTile) -> Tensor:
        if self._bf16_decision is not None:
            # As in the earlier run: float32 before that window; in it the same tiles decide again.
            since, bf16 = self._bf16_decision
            self.upscaler.bf16 = None if number == since else bf16 and number > since
        was_undecided = self.upscaler.bf16 is None
        noted_grid = self._grid_of(number)
        if noted_grid is not None and noted_grid != self.upscaler.grid:
            if self._has_run or self.fits(noted_grid):
                self.upscaler.grid = noted_grid
            else:
                self.say("too little memory is free for the tiles of the earlier run; the rest uses other tiles")
        frames = self.upscaler(window, on_tile)
        if newly_decided := was_undecided and self.upscaler.bf16 is not None:
            self._bf16_decision = (number, bool(self.upscaler.bf16))
        if self.upscaler.grid != noted_grid:
            self._grids.append((number, self.upscaler.grid))
        if newly_decided or self.upscaler.grid != noted_grid:
            self._write_settings()
        return frames

    def _grid_of(self, number: int) -> Grid | None:
        """The tiles noted for a window: one made again has those of the earlier run. None if there are none."""
        return next((grid for since, grid in reversed(self._grids) if since <= number), None)

    def _scenes(self) -> Iterator[tuple[Tensor, bool]]:
        """Each frame with whether it starts a scene: after a cut or a pause."""
        for number, (frame, cut) in enumerate(scene_starts(self.source.frames())):
            yield frame, cut or number in self.source.breaks

    def _read_settings(self) -> None:
        """Takes over an earlier run's tiles and precision, so that all frames are made alike."""
        if self.settings is not None and self.settings.is_file():
            saved = json.loads(self.settings.read_text())
            self._grids = [(number, Grid(rows, columns)) for number, rows, columns in saved["grids"]]
            if saved["precision"] is not None:
                self._bf16_decision = tuple(saved["precision"])

    def _write_settings(self) -> None:
        if self.settings is not None:
            grids = [[number, grid.rows, grid.columns] for number, grid in self._grids]
            write_text(self.settings, json.dumps({"grids": grids, "precision": self._bf16_decision}))

    def _on_tile(self, bar: "tqdm[Any]", started: float, windows_left: float | None, done: int, tiles: int) -> None:
        """Shows the tile; on a CPU, warns once if `windows_left` such windows will take long (None: not estimated)."""
        if tiles > 1:
            bar.set_postfix_str(f"tile {done}/{tiles}")
        self._has_run = True
        if windows_left is None or self._estimated:
            return
        self._estimated = True
        hours = (time.monotonic() - started) * tiles * windows_left / 3600
        if self.upscaler.device.type == "cpu" and hours > SLOW:
            self.say(
                f"this will take about {hours:.1f} hours on the CPU; a GPU should be much faster "
                "(to try first: --duration 0.1, or --method bicubic)"
            )
