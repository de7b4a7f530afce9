"""A folder of ordinary video files to be scored from the first frame to the last.

Training takes windows at random from such a folder (`videos.py`); scoring takes all of them. An excerpt that crosses
a scene cut or a pause says so: nothing between two such frames could be right.
"""

from collections import Counter
from pathlib import Path

from stvsr.data.clip_sets import ClipInfo, Excerpt
from stvsr.data.decoding import index_video, read_frames
from stvsr.data.scene_cuts import first_cut
from stvsr.data.videos import pauses, video_files


class WholeVideos:
    """Every video file of a folder, a clip each.

    Args:
        root: the folder; subfolders are searched too.
        name: of the set, in tables; None takes the folder's.

    Raises:
        InvalidInput: no such folder, or no video file in it.
        DamagedClip: a file cannot be read frame by frame.
    """

    def __init__(self, *, root: str | Path, name: str | None = None) -> None:
        self.root = Path(root)
        self.name = name or self.root.resolve().name
        self.paths = video_files(self.root)
        self.indices = [index_video(path) for path in self.paths]
        names = [path.relative_to(self.root).with_suffix("").as_posix() for path in self.paths]
        # Two files may differ in their suffix alone.
        count = Counter(names)
        self.names = [
            name if count[name] == 1 else path.relative_to(self.root).as_posix()
            for name, path in zip(names, self.paths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self, index: int) -> ClipInfo:
        """Frames are numbered from 0; the motion of a video is never known."""
        return ClipInfo(self.name, self.names[index], len(self.indices[index]), 0, None)

    def excerpt(self, index: int, first: int, count: int) -> Excerpt:
        """Decodes the frames and looks for a cut or a pause among them.

        Raises:
            DamagedClip: the file cannot be decoded there.
        """
        video = self.indices[index]
        frames = read_frames(video, first, count)
        lost = frozenset(position - first for position in pauses(video) if first < position < first + count)
        interruption = None
        if first_cut(frames) is not None:
            interruption = "scene cut"
        elif lost:
            interruption = "pause in the video"
        return Excerpt(hr=frames, interruption=interruption, pauses=lost)

    def files(self, index: int, first: int, count: int) -> list[Path]:
        """The video file."""
        return [self.paths[index]]
