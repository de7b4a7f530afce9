"""Files of moving pictures and sound, opened by FFmpeg under any name and with any tags."""

import io
import os
import re
from contextlib import suppress
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer

from stvsr.errors import DamagedClip

PLAYLIST, PLAYLIST_SIZE = b"#EXTM3U", 2**24
"""How a playlist of HLS begins, and more bytes than one has."""

IN_A_TAG = re.compile(rb'^#[^\r\n]*\bURI="([^"\r\n]+)"', re.MULTILINE)
"""Where a playlist names a file elsewhere than in a line of its own: a key, or the beginning of all parts."""

FAR = {"analyzeduration": "60000000", "probesize": "100000000"}
"""Microseconds and bytes that FFmpeg reads at most before it tells what a file holds; usually five seconds."""

ANY_TAGS = "surrogateescape"
"""Titles of old files are often no UTF-8: their bytes are kept, and written as they were."""


def ffmpeg_name(path: Path) -> str:
    """What FFmpeg, and libraries over it, must be given to open a file.

    Of `12:30.mp4` they would take what stands before the colon for a protocol.
    """
    return str(path.absolute())


def open_input(path: Path, *, thorough: bool = False) -> InputContainer:
    """A file to read.

    Args:
        path: of the file.
        thorough: whether to look far for what is known of all of its streams, some of which may begin late.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
        DamagedClip: a playlist without an end, which FFmpeg takes for live: it would read the last parts, and wait.
    """
    playlist = _playlist(path)
    if b"#EXTINF" in playlist and b"#EXT-X-ENDLIST" not in playlist:
        raise DamagedClip(f"{path}: a playlist that has not ended; add #EXT-X-ENDLIST as its last line")
    return av.open(ffmpeg_name(path), metadata_errors=ANY_TAGS, container_options=FAR if thorough else {})


def files_of(path: Path) -> list[Path]:
    """A file, and all that it names if it is a playlist, by other playlists too; some need not be there."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        if (file := waiting.pop()) in found:
            continue
        found[file] = None
        said = _playlist(file)
        named = [line for line in said.splitlines()[1:] if not line.startswith(b"#")] + IN_A_TAG.findall(said)
        # A power cut may leave zeros.
        names = [name.partition(b"\0")[0].strip() for name in named]
        waiting += [file.parent / os.fsdecode(name) for name in names if name]
    return [*found]


def _playlist(path: Path) -> bytes:
    """What a playlist of HLS says; nothing of any other file."""
    # What cannot be read FFmpeg tells.
    with suppress(OSError), path.open("rb") as file:
        return PLAYLIST + file.read(PLAYLIST_SIZE) if file.read(len(PLAYLIST)) == PLAYLIST else b""
    return b""


def open_output(target: Path | io.BytesIO, form: str, options: dict[str, str] | None = None) -> OutputContainer:
    """A file to write.

    Args:
        target: the file.
        form: FFmpeg's name of its kind.
        options: of the muxer.

    Raises:
        av.FFmpegError: FFmpeg cannot write it.
    """
    file = ffmpeg_name(target) if isinstance(target, Path) else target
    return av.open(file, "w", format=form, container_options=options, metadata_errors=ANY_TAGS)


def can_be_read(path: Path) -> bool:
    """Whether the system gives a file's beginning and end. FFmpeg has one error for that and a file that ends early."""
    try:
        with path.open("rb") as file:
            file.read(1)
            file.seek(max(0, path.stat().st_size - 1))
            file.read(1)
    except OSError:
        return False
    return True
