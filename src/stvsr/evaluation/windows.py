"""The windows of a clip set as a data set: ground truth, the network's input, and measured motion."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

from torch import Tensor
from torch.utils.data import Dataset

from stvsr.data.clip import FRAMES, to_float, whole_pixels
from stvsr.data.clip_sets import ClipInfo, ClipSet, Excerpt
from stvsr.data.degradation import downsample_stored
from stvsr.data.motion_measure import measure_motion
from stvsr.errors import DamagedClip, InvalidInput
from stvsr.evaluation.metrics import SSIM_WINDOW
from stvsr.evaluation.predictions import SavedFrames
from stvsr.evaluation.protocols import Protocol, Window
from stvsr.files import state_of


@dataclass(frozen=True)
class Task:
    """One window of one clip.

    Attributes:
        index: of the clip in its set.
        clip: what it is.
        window: which of its frames.
        folder: of the clip's frames and pictures, relative to the folder for all clips.
    """

    index: int
    clip: ClipInfo
    window: Window
    folder: str

    @property
    def numbers(self) -> list[int]:
        """Frame numbers, as in file names, of the frames that count."""
        return [self.clip.first_number + frame for frame in self.window.frames]


def check_text(what: str, name: str, remedy: str) -> None:
    """Refuses a name that is not valid text: it could not be written into tables.

    Raises:
        InvalidInput: it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} {name!r}: the name is not UTF-8; expected text: {remedy}") from None


def plan(clips: ClipSet, protocol: Protocol) -> list[Task]:
    """Every window of every clip, in order.

    A clip's folder has the name of the clip; where there are several sets, it lies in a folder named after its set.

    Raises:
        InvalidInput: there is no clip, one is too short, two have the same name, or a name is not UTF-8.
    """
    infos = [clips.describe(index) for index in range(len(clips))]
    if not infos:
        raise InvalidInput("the clip set is empty; expected at least one clip to score")
    several = len({info.clip_set for info in infos}) > 1
    tasks, seen = [], set()
    for index, info in enumerate(infos):
        if (info.clip_set, info.name) in seen:
            raise InvalidInput(
                f"two clips are called {info.name} in {info.clip_set}; rename one, or give the sets names"
            )
        seen.add((info.clip_set, info.name))
        for what, name in (("clip", info.name), ("the clip set", info.clip_set)):
            check_text(what, name, "rename it")
        folder = f"{info.clip_set}/{info.name}" if several else info.name
        tasks += [Task(index, info, window, folder) for window in protocol.windows(info)]
    return tasks


@dataclass(frozen=True)
class WindowFrames:
    """A window that has been read.

    Attributes:
        task: which window it is.
        hr: `(7, 3, H, W)`, uint8; an incomplete last row or column of LR pixels is cut off.
        lr: `(n, 3, h, w)`, float32 in [0, 1]: the window's four frames and those around it that the network reaches.
        inside: the position of the window's first frame among the `2n-1` that a network makes of `lr`.
        prediction: saved frames in place of a network's, `(frames that count, 3, H, W)`, uint8; or None.
        motion: HR pixels from the frame before, for each frame that counts; None for the first of a clip.
        pairs: checksums of the pixels of the frame before and of this one, likewise.
        size: width and height before the cut.
        interruption: why the frames do not belong together; None if they do.
        state: fingerprint of the files it was read from.
    """

    task: Task
    hr: Tensor
    lr: Tensor
    inside: int
    prediction: Tensor | None
    motion: list[float | None]
    pairs: list[str | None]
    size: tuple[int, int]
    interruption: str | None
    state: str


class Windows(Dataset[WindowFrames]):
    """Reads the windows of a plan.

    Args:
        clips: where frames come from.
        tasks: the plan.
        predictions: saved frames to score, or None.
        motion: what was measured before, by pair, and need not be measured again.
        reach: LR frames that the network is given before and after a window (`Network.reach`), as far as the clip has
            them and is not interrupted there.
    """

    def __init__(
        self,
        *,
        clips: ClipSet,
        tasks: list[Task],
        predictions: SavedFrames | None,
        motion: Mapping[str, float],
        reach: int,
    ) -> None:
        self.clips = clips
        self.tasks = tasks
        self.predictions = predictions
        self.motion = motion
        self.reach = reach

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, position: int) -> WindowFrames:
        """Reads window `position` of the plan.

        Raises:
            DamagedClip: a frame cannot be read as it should be.
            InvalidInput: there are too many or too few LR frames.
        """
        task = self.tasks[position]
        # Before reading: frames rewritten meanwhile must not pass for those scored.
        state = self.state(task)
        excerpt = self._read(task, task.window.all_frames)
        inside, seen = self._with_surroundings(task, excerpt)
        height, width = excerpt.hr.shape[-2:]
        hr = whole_pixels(excerpt.hr)
        if min(hr.shape[-2:]) < SSIM_WINDOW:
            raise DamagedClip(
                f"clip {task.clip.name}: frames are {width}x{height}; expected at least {SSIM_WINDOW} pixels each way "
                "after the cut to whole LR pixels: remove the clip"
            )
        pairs = frame_pairs(hr)[task.window.kept.start : task.window.kept.stop]
        prediction = None
        if self.predictions is not None and excerpt.interruption is None:
            prediction = whole_pixels(self.predictions.read(task.clip, task.numbers, (width, height)))
        return WindowFrames(
            task=task,
            hr=hr,
            lr=downsample_stored(whole_pixels(seen.hr)[::2]) if seen.lr is None else to_float(seen.lr),
            inside=inside,
            prediction=prediction,
            motion=self._motion(task, hr, pairs),
            pairs=pairs,
            size=(width, height),
            interruption=excerpt.interruption,
            state=state,
        )

    def state(self, task: Task) -> str:
        """Fingerprint of the files that a window is read from, saved frames too; changes when one is rewritten."""
        saved = [] if self.predictions is None else self.predictions.files(task.clip, task.numbers)
        frames = self._around(task)
        return state_of([*self.clips.files(task.index, frames.start, len(frames)), *saved])

    def _with_surroundings(self, task: Task, window: Excerpt) -> tuple[int, Excerpt]:
        """The window's position in the frames that the network sees, and these: the window and those around it.

        The window is read by itself first: a scene cut around it must not decide whether it is scored.
        """
        frames = self._around(task)
        if len(frames) > FRAMES and window.interruption is None:
            wide = self._read(task, frames)
            if wide.interruption is None:
                return task.window.first - frames.start, wide
        return 0, window

    def _around(self, task: Task) -> range:
        """The frames of a window and those around it that the network reaches.

        Frames are added in pairs, one LR and one synthesised frame, so that the network is still given the window's
        first frame.
        """
        window, pairs = task.window.all_frames, 2 * self.reach
        before, after = (min(pairs, available // 2 * 2) for available in (window.start, task.clip.frames - window.stop))
        return range(window.start - before, window.stop + after)

    def _read(self, task: Task, frames: range) -> Excerpt:
        excerpt = self.clips.excerpt(task.index, frames.start, len(frames))
        if len(excerpt.hr) != len(frames):
            raise DamagedClip(
                f"clip {task.clip.name}: {len(excerpt.hr)} frames from {frames.start} on; expected {len(frames)}: "
                "the clip has changed or is damaged"
            )
        if excerpt.lr is not None and len(excerpt.lr) != len(excerpt.hr[::2]):
            raise InvalidInput(
                f"clip {task.clip.name}: {len(excerpt.lr)} LR frames for {len(excerpt.hr)} HR frames; expected "
                f"{len(excerpt.hr[::2])}, one for every other HR frame"
            )
        return excerpt

    def _motion(self, task: Task, hr: Tensor, pairs: list[str | None]) -> list[float | None]:
        """The motion to each frame that counts; measured unless all of it is known."""
        if all(pair is None or pair in self.motion for pair in pairs):
            return [None if pair is None else self.motion[pair] for pair in pairs]
        measured: list[float | None] = [None, *measure_motion(hr)]
        return measured[task.window.kept.start : task.window.kept.stop]


def frame_pairs(frames: Tensor) -> list[str | None]:
    """For each of the frames `(t, 3, H, W)`, a checksum of it and the one before it; None for the first."""
    sums = [blake2b(frame.contiguous().numpy(), digest_size=8).hexdigest() for frame in frames]
    return [None, *(before + after for before, after in pairwise(sums))]
