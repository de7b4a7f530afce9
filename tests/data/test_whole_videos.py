"""Videos scored whole: every frame, in order, from the right file."""

from pathlib import Path

import pytest
import torch

from conftest import moving_frames, write_video
from stvsr.data.whole_videos import WholeVideos
from stvsr.errors import InvalidInput


def test_frames_are_those_that_were_written(tmp_path: Path) -> None:
    frames = moving_frames(20, (48, 64))
    write_video(tmp_path / "deep" / "a.mp4", frames)
    clips = WholeVideos(root=tmp_path)
    info = clips.describe(0)
    assert (info.clip_set, info.name, info.frames, info.first_number) == (tmp_path.name, "deep/a", 20, 0)
    excerpt = clips.excerpt(0, 9, 7)
    assert torch.equal(excerpt.hr, frames[9:16])
    assert excerpt.lr is None
    assert excerpt.interruption is None


def test_files_that_differ_in_their_ending_alone_keep_it(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "b.mp4"):
        write_video(tmp_path / name, moving_frames(8, (48, 64)))
    clips = WholeVideos(root=tmp_path, name="mine")
    assert [clips.describe(i).name for i in range(3)] == ["a.mkv", "a.mp4", "b"]
    assert clips.describe(0).clip_set == "mine"


def test_the_folder_one_is_in_has_its_name_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "mine" / "a.mp4", moving_frames(8, (48, 64)))
    monkeypatch.chdir(tmp_path / "mine")
    assert WholeVideos(root=".").describe(0).clip_set == "mine"


def test_a_scene_cut_is_told(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", torch.cat([moving_frames(10, (48, 64)), 255 - moving_frames(10, (48, 64), seed=9)]))
    clips = WholeVideos(root=tmp_path)
    assert [clips.excerpt(0, first, 7).interruption for first in (0, 3, 4, 9, 10)] == [
        *(None, None, "scene cut", "scene cut", None)
    ]


def test_a_pause_is_told_and_where_it_is(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(20, (48, 64)), times=[*range(10), *range(25, 35)])
    clips = WholeVideos(root=tmp_path)
    excerpts = [clips.excerpt(0, first, 7) for first in (3, 4, 6, 9, 10)]
    assert [(excerpt.interruption, excerpt.pauses) for excerpt in excerpts] == [
        (None, frozenset()),
        *(("pause in the video", {place}) for place in (6, 4, 1)),
        (None, frozenset()),
    ]


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no video files there"):
        WholeVideos(root=tmp_path)
