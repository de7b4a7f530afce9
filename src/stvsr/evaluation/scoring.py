"""The scoring loop: windows go through a network (or come from saved frames) and become scores.

Batches are fixed beforehand: which windows share one does not depend on how many processes there are or on what was
scored before an interruption, so neither do the scores.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stvsr.data.clip import to_8bit
from stvsr.data.workers import leave_signals_to_parent, prepare_for, share_with_parent
from stvsr.devices import (
    check_answering,
    device_name,
    forget_peak_memory,
    is_out_of_memory,
    peak_memory,
    synchronise,
)
from stvsr.errors import InvalidInput, one_line
from stvsr.evaluation.metrics import frame_scores
from stvsr.evaluation.perceptual import Metric
from stvsr.evaluation.predictions import save_frames
from stvsr.evaluation.progress import BatchRecord
from stvsr.evaluation.scores import WindowScore
from stvsr.evaluation.shown import ShownClips
from stvsr.evaluation.stage_clock import StageClock
from stvsr.evaluation.windows import WindowFrames, Windows
from stvsr.graphs import Replayed
from stvsr.models.network import Network, run_padded


def fixed_batches(windows: int, size: int) -> list[range]:
    """The positions of windows in the plan, `size` at a time."""
    return [range(start, min(start + size, windows)) for start in range(0, windows, size)]


class Scorer:
    """Scores batches of windows, one after the other.

    Args:
        windows: reads them.
        batches: the windows of each, by position in the plan.
        network: makes the frames; None where saved ones are scored.
        device: where the network and the metrics run.
        extras: further metrics by name.
        shown: keeps pictures.
        save_to: where to write the frames that count, or None.
        workers: loader processes.
    """

    def __init__(
        self,
        *,
        windows: Windows,
        batches: list[range],
        network: Network | None,
        device: torch.device,
        extras: dict[str, Metric],
        shown: ShownClips,
        save_to: Path | None,
        workers: int,
    ) -> None:
        self.windows = windows
        self.batches = batches
        self.network = Replayed(network.to(device)) if network is not None else None
        self.clock = StageClock({} if network is None else network.stages, device)
        self.device = device
        self.extras = extras
        self.shown = shown
        self.save_to = save_to
        self.workers = workers
        self.device_name = device_name(device)
        self._shapes: set[torch.Size] = set()
        self._peak = 0.0

    def run(self, numbers: Iterable[int]) -> Iterator[BatchRecord]:
        """Scores batches by number, in this order.

        Raises:
            DamagedClip: a frame cannot be read.
            InvalidInput: the network's output is not finite, a further metric fails, or memory runs out.
        """
        todo = list(numbers)
        prepare_for(self.workers)
        loader = DataLoader(
            self.windows,
            batch_sampler=[list(self.batches[number]) for number in todo],
            num_workers=self.workers,
            collate_fn=handed_over,
            worker_init_fn=leave_signals_to_parent,
        )
        requested = time.perf_counter()
        for number, batch in zip(todo, loader, strict=True):
            waiting = time.perf_counter() - requested
            try:
                record = self._score(number, batch, waiting)
            except (RuntimeError, MemoryError) as error:
                # After a failed kernel, cuDNN may report a lack of memory.
                check_answering(self.device)
                if not is_out_of_memory(error):
                    raise
                raise self._too_large(batch) from None
            yield record
            requested = time.perf_counter()

    def _too_large(self, batch: list[WindowFrames]) -> InvalidInput:
        height, width = batch[0].lr.shape[-2:]
        remedies = ["a smaller batch_size"] if len(batch) > 1 else []
        remedies.append("device=cpu" if self.device.type == "cuda" else "a machine with more")
        return InvalidInput(
            f"clip {batch[0].task.clip.name}: {self.device_name} has too little memory for {len(batch)} "
            f"window(s) of {width}x{height} LR pixels at once; choose {' or '.join(remedies)}"
        )

    @torch.inference_mode()
    def _score(self, number: int, batch: list[WindowFrames], waiting: float) -> BatchRecord:
        scores, network_frames, network_seconds, scoring_seconds, warm = [], 0, 0.0, 0.0, True
        self.clock.reset()
        pairs = zip(self.batches[number], batch, strict=True)
        # Windows of one size share a pass through the network.
        for (shape, interruption), group in groupby(pairs, key=lambda item: (item[1].lr.shape, item[1].interruption)):
            positions, windows = zip(*group, strict=True)
            # Interrupted windows are never scored; they run only where frames are saved, so that none is missing.
            if interruption is not None and self.save_to is None:
                scores += [_unscored(position, window) for position, window in zip(positions, windows, strict=True)]
                continue
            predictions, seconds = self._predictions(windows)
            if self.network is not None:
                network_seconds += seconds
                network_frames += (2 * shape[0] - 1) * len(windows)
                batch_shape = torch.Size((len(windows), *shape))
                warm &= batch_shape in self._shapes
                self._shapes.add(batch_shape)
            for position, window, prediction in zip(positions, windows, predictions, strict=True):
                started = time.perf_counter()
                eight_bit = to_8bit(prediction.to(self.device))
                if interruption is None:
                    scores.append(self._window_score(position, window, eight_bit))
                    scoring_seconds += time.perf_counter() - started
                    self.shown.add(window, eight_bit)
                else:
                    scores.append(_unscored(position, window))
                if self.save_to is not None:
                    save_frames(self.save_to / window.task.folder, window.task.numbers, eight_bit)
        return BatchRecord(
            batch=number,
            windows=scores,
            lr_size=(batch[0].lr.shape[-2], batch[0].lr.shape[-1]),
            device=self.device_name,
            network_frames=network_frames,
            network_seconds=network_seconds,
            stage_seconds=self.clock.seconds,
            scoring_seconds=scoring_seconds,
            waiting_seconds=waiting,
            warm=warm and network_frames > 0,
            peak_memory=self._peak,
        )

    def _predictions(self, group: Sequence[WindowFrames]) -> tuple[list[Tensor], float]:
        """Each window's frames that count, `(t, 3, H, W)`, and the network's seconds (0 for saved frames)."""
        if self.network is None:
            return [window.prediction for window in group if window.prediction is not None], 0.0
        # The metrics may take more GPU memory than a small network.
        if self.device.type == "cuda":
            forget_peak_memory(self.device)
        lr = torch.stack([window.lr for window in group]).to(self.device)
        synchronise(self.device)
        started = time.perf_counter()
        prediction = run_padded(self.network, lr)
        synchronise(self.device)
        seconds = time.perf_counter() - started
        self._peak = max(self._peak, peak_memory(self.device))
        if not prediction.isfinite().all():
            raise InvalidInput(
                f"clip {group[0].task.clip.name}: the network's output is not finite; use another checkpoint"
            )
        counted = []
        for frames, window in zip(prediction, group, strict=True):
            kept = window.task.window.kept
            counted.append(frames[window.inside + kept.start : window.inside + kept.stop])
        return counted, seconds

    def _window_score(self, position: int, window: WindowFrames, prediction: Tensor) -> WindowScore:
        """Scores the frames that count, `(t, 3, H, W)`, uint8."""
        kept = window.task.window.kept
        target = window.hr[kept.start : kept.stop].to(self.device)
        before = window.hr[: kept.start][-1:].to(self.device)
        metrics = {name: values.tolist() for name, values in frame_scores(prediction, target).items()}
        return WindowScore(
            position=position,
            metrics=metrics | {name: self._extra(name, prediction, target, before) for name in self.extras},
            motion=window.motion,
            pairs=window.pairs,
            black=(target == 0).flatten(1).all(dim=1).tolist(),
            size=window.size,
            interruption=None,
            state=window.state,
        )

    def _extra(self, name: str, prediction: Tensor, target: Tensor, before: Tensor) -> list[float]:
        try:
            result = self.extras[name](prediction, target, before)
        except RuntimeError as error:
            check_answering(self.device)
            if is_out_of_memory(error):
                raise
            height, width = target.shape[-2:]
            # LPIPS and VMAF halve frames several times, too often for small ones.
            raise InvalidInput(
                f"extras=[{name}]: cannot measure frames of {width}x{height} ({one_line(error)[:200]}); leave it out"
            ) from None
        values: list[float] = torch.as_tensor(result, dtype=torch.float64).tolist()
        if not isinstance(values, list) or len(values) != len(prediction):
            raise InvalidInput(
                f"extras=[{name}]: returned {values}; expected a value for each of {len(prediction)} frames"
            )
        return values


def handed_over(batch: list[WindowFrames]) -> list[WindowFrames]:
    """The batch, in memory that a loader process shares with its parent."""
    for window in batch:
        share_with_parent(window.hr, window.lr, *([] if window.prediction is None else [window.prediction]))
    return batch


def _unscored(position: int, window: WindowFrames) -> WindowScore:
    return WindowScore(position, {}, window.motion, window.pairs, [], window.size, window.interruption, window.state)
