"""Video and audio files, opened by FFmpeg whatever their names and tags."""

import io
import os
import re
from contextlib import suppress
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer

from stvsr.errors import DamagedClip

PLAYLIST, PLAYLIST_SIZE = b"#EXTM3U", 2**24
"""How an HLS playlist begins, and the most bytes that are read of it."""

IN_A_TAG = re.compile(rb'^#[^\r\n]*\bURI="([^"\r\n]+)"', re.MULTILINE)
"""A file that a playlist names within a tag, not on a line of its own: a key, or the header of all segments."""

FAR = {"analyzeduration": "60000000", "probesize": "100000000"}
"""Microseconds and bytes that FFmpeg reads at most to find out what a file holds; by default five seconds."""

ANY_TAGS = "surrogateescape"
"""Error handler: tags of old files are often not UTF-8; their bytes are kept, and written as they were."""


def ffmpeg_name(path: Path) -> str:
    """The name by which FFmpeg, and libraries built on it, can open a file.

    In `12:30.mp4` they would take what stands before the colon for a protocol.
    """
    return str(path.absolute())


def open_input(path: Path, *, thorough: bool = False) -> InputContainer:
    """Opens a file for reading.

    Args:
        path: of the file.
        thorough: whether to read far into the file to learn about all of its streams, some of which may begin late.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
        DamagedClip: a playlist without an end; FFmpeg would take it for live, read its last segments, and wait.
    """
    playlist = _playlist(path)
    if b"#EXTINF" in playlist and b"#EXT-X-ENDLIST" not in playlist:
        raise DamagedClip(f"{path}: a playlist without an end; add #EXT-X-ENDLIST as its last line")
    return av.open(ffmpeg_name(path), metadata_errors=ANY_TAGS, container_options=FAR if thorough else {})


def files_of(path: Path) -> list[Path]:
    """A file and, if it is a playlist, all files that it names, also through other playlists; some may not exist."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        if (file := waiting.pop()) in found:
            continue
        found[file] = None
        content = _playlist(file)
        raw_names = [line for line in content.splitlines()[1:] if not line.startswith(b"#")] + IN_A_TAG.findall(content)
        # A power cut may leave zeros.
        names = [name.partition(b"\0")[0].strip() for name in raw_names]
        waiting += [file.parent / os.fsdecode(name) for name in names if name]
    return [*found]


def _playlist(path: Path) -> bytes:
    """The content of an HLS playlist; empty for any other file."""
    # FFmpeg reports what cannot be read.
    with suppress(OSError), path.open("rb") as file:
        return PLAYLIST + file.read(PLAYLIST_SIZE) if file.read(len(PLAYLIST)) == PLAYLIST else b""
    return b""


def open_output(target: Path | io.BytesIO, form: str, options: dict[str, str] | None = None) -> OutputContainer:
    """Opens a file for writing.

    Args:
        target: the file.
        form: FFmpeg's name of the container format.
        options: of the muxer.

    Raises:
        av.FFmpegError: FFmpeg cannot write it.
    """
    file = ffmpeg_name(target) if isinstance(target, Path) else target
    return av.open(file, "w", format=form, container_options=options, metadata_errors=ANY_TAGS)


def can_be_read(path: Path) -> bool:
    """Whether a file's beginning and end can be read. FFmpeg has one error for I/O failures and for truncated files."""
    try:
        with path.open("rb") as file:
            file.read(1)
            file.seek(max(0, path.stat().st_size - 1))
            file.read(1)
    except OSError:
        return False
    return True
