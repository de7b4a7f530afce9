"""The folder of an evaluation, in which it replaces only what an evaluation made."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from stvsr.errors import InvalidInput
from stvsr.evaluation.progress import PROGRESS
from stvsr.evaluation.results import RESULTS, read_results
from stvsr.evaluation.shown import PICTURES
from stvsr.unfinished import JOB_FILE, remove

SAVED = "frames"
"""The folder of saved frames, below `output_dir`."""

OURS = ".evaluation"
"""A file in `output_dir` that marks the pictures there as made by an evaluation and, by its content, the frames too."""


class OutputFolder:
    """The folder that an evaluation writes to.

    Args:
        folder: where.
        saves: whether frames are saved there.
        reads: folders that the evaluation reads.
    """

    def __init__(self, folder: Path, *, saves: bool, reads: Sequence[Path]) -> None:
        self.folder = folder
        self.saves = saves
        self.reads = reads
        self.pictures, self.frames = folder / PICTURES, folder / SAVED

    def check(self) -> None:
        """Refuses a folder in which something would be replaced that no evaluation made, or that this one reads.

        Raises:
            InvalidInput: names it.
        """
        unfinished = (self.folder / PROGRESS / JOB_FILE).is_file()
        made_here = self._made_here() or unfinished
        targets = {self.pictures: made_here} | ({self.frames: self._saved_here or unfinished} if self.saves else {})
        for target, replaceable in targets.items():
            if (input_folder := self._input_within(target)) is not None:
                raise InvalidInput(
                    f"{input_folder}: lies in {target}, which would be replaced; choose another output_dir"
                )
            if not target.is_dir() and (target.exists() or target.is_symlink()):
                raise InvalidInput(f"{target}: not a folder or a link to one; remove it, or choose another output_dir")
            if not replaceable and target.is_dir() and any(target.iterdir()):
                raise InvalidInput(f"{target}: would be replaced, but no evaluation made it; choose another output_dir")
        results = self.folder / RESULTS
        if not made_here and results.exists():
            raise InvalidInput(f"{results}: would be replaced, but no evaluation made it; choose another output_dir")
        if not made_here and (self.folder / "checkpoints").is_dir():
            raise InvalidInput(
                f"{self.folder}: is that of a training run, whose logs would be replaced; choose another output_dir"
            )

    def check_links(self) -> None:
        """Refuses to replace a folder that is a link to one that is not empty: what else it holds is unknown.

        Raises:
            InvalidInput: names it.
        """
        for target in self._replaced():
            if target.is_symlink() and target.is_dir() and any(target.iterdir()):
                raise InvalidInput(f"{target}: is a link to a folder that is not empty; empty it, or remove the link")

    def clear(self) -> None:
        """Removes results, pictures and frames that an earlier evaluation left."""
        replaced = self._replaced()
        # First: they mark a finished evaluation, also if a kill leaves the rest.
        (self.folder / RESULTS).unlink(missing_ok=True)
        # A link stays: it leads to an empty folder.
        for target in replaced:
            if target.is_dir() and not target.is_symlink():
                remove(target)
        keeps_frames = self._saved_here and self.frames not in replaced
        (self.folder / OURS).write_text(SAVED if keeps_frames or self.saves else "")

    def _replaced(self) -> list[Path]:
        """The folder of pictures, and that of frames if it is to be written or would pass for this evaluation's."""
        # Frames that this evaluation scores stay.
        stale = self._saved_here and self._input_within(self.frames) is None
        return [self.pictures, *([self.frames] if stale or self.saves else [])]

    def _made_here(self) -> bool:
        """Whether an evaluation has scored something here, even if its progress is gone."""
        # An unreadable results.json may be any program's.
        with suppress(InvalidInput):
            return (self.folder / OURS).is_file() or bool(read_results(self.folder).rows)
        return False

    @cached_property
    def _saved_here(self) -> bool:
        """Whether an evaluation saved frames here before this one began."""
        with suppress(FileNotFoundError):
            if (self.folder / OURS).read_text() == SAVED:
                return True
        with suppress(InvalidInput):
            return bool(read_results(self.folder).made_with.get("save_frames"))
        return False

    def _input_within(self, folder: Path) -> Path | None:
        """A folder that this evaluation reads and that is `folder` or lies in it, if there is one."""
        return next((root for root in self.reads if root.resolve().is_relative_to(folder.resolve())), None)
