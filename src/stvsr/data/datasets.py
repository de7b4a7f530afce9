"""Map-style datasets over any source: training draws crops, validation takes whole frames.

Training is counted in draws, not in epochs: draw `p` of a run is a pure function of the seed and of `p`. Which
clip it takes, where it crops and how it augments do not depend on the process, the worker or what was drawn before.
That is why an interrupted run resumes as if it had never stopped, and why any number of processes can share the
draws of a step.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from stvsr.data.augmentation import augment
from stvsr.data.clip import SCALE, Clip, Footage, Source, to_float, whole_pixels
from stvsr.data.clip_sets import read_fixed
from stvsr.data.degradation import MARGIN, downsample_crop, downsample_stored
from stvsr.errors import DamagedClip

MAX_DAMAGED_IN_A_ROW = 50
"""This many damaged clips in a row end a run: the data set is at fault, not a clip.

A long run makes 14 million draws: if a quarter of the clips are damaged, ten in a row occur about a dozen times.
"""


class TrainingClips(Dataset[Clip]):
    """Random crops of random clips, augmented.

    Args:
        source: where clips come from.
        crop: side of the LR crop in pixels, a multiple of 4, as the one-stage network needs it; 32 in the paper.
        draws: how many clips the run draws in all.
        seed: determines every draw.
    """

    def __init__(self, *, source: Source, crop: int, draws: int, seed: int) -> None:
        self.source = source
        self.crop = crop
        self.draws = draws
        self.seed = seed

    def __len__(self) -> int:
        return self.draws

    def __getitem__(self, draw: int) -> Clip:
        """Clip number `draw` of the run: LR `(n, 3, crop, crop)`, HR `(2n-1, 3, 4 crop, 4 crop)`.

        A damaged clip is replaced by that of the next draw, and its error is kept in `Clip.skipped`.

        Raises:
            DamagedClip: `MAX_DAMAGED_IN_A_ROW` clips in a row are damaged.
            IndexError: the run has no such draw.
        """
        if not 0 <= draw < self.draws:
            raise IndexError(f"draw {draw} is out of range: {self.draws} draws")
        skipped: list[str] = []
        while True:
            rng = np.random.default_rng((self.seed, draw, len(skipped)))
            index = self._index(draw + len(skipped))
            try:
                return self._crop(self.source.read(index, rng), rng, tuple(skipped))
            except DamagedClip as error:
                skipped.append(str(error))
                if len(skipped) == MAX_DAMAGED_IN_A_ROW:
                    raise DamagedClip(f"{MAX_DAMAGED_IN_A_ROW} damaged clips in a row, the last: {error}") from None

    def _index(self, draw: int) -> int:
        """Each pass takes every clip once, in a random order of its own."""
        pass_number, place = divmod(draw, len(self.source))
        return int(_permutation(self.seed, pass_number, len(self.source))[place])

    def _crop(self, footage: Footage, rng: np.random.Generator, skipped: tuple[str, ...]) -> Clip:
        side = SCALE * self.crop
        frames = whole_pixels(footage.frames)
        h, w = frames.shape[-2:]
        if min(h, w) < side:
            largest = min(h, w) // SCALE // 4 * 4
            raise DamagedClip(
                f"clip {footage.name} is {w}x{h}, too small for a crop of {side}x{side}; remove it"
                + (f" or set loader.crop to at most {largest}" if largest else "")
            )
        top, left = (SCALE * int(rng.integers((size - side) // SCALE + 1)) for size in (h, w))
        footage.prefetch_rows(max(top - MARGIN, 0), min(top + side + MARGIN, h))
        lr = downsample_crop(frames[::2], top=top, left=left, height=side, width=side)
        hr = to_float(frames[..., top : top + side, left : left + side])
        lr, hr = augment(lr, hr, rng)
        return Clip(lr=lr, hr=hr, name=footage.name, motion=footage.motion, skipped=skipped)


class ValidationClips(Dataset[Clip]):
    """Whole frames, in order; sides are cut at the bottom and right to multiples of 4.

    Args:
        source: where clips come from.
    """

    def __init__(self, *, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Clip:
        """Clip `index`: LR `(n, 3, h, w)`, HR `(2n-1, 3, 4h, 4w)`.

        Raises:
            DamagedClip: the clip cannot be read; a validation without it would not be comparable.
            IndexError: there is no such clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip index {index} is out of range: {len(self)} clips")
        footage = read_fixed(self.source, index)
        frames = whole_pixels(footage.frames)
        lr = downsample_stored(frames[::2])
        return Clip(lr=lr, hr=to_float(frames), name=footage.name, motion=footage.motion)


@lru_cache(maxsize=2)
def _permutation(seed: int, pass_number: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, pass_number)).permutation(size)
