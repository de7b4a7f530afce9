"""Everything in a file besides its pictures comes out as it went in: times, sound, subtitles, rotation.

Inputs are made by ffmpeg, as varied as those of users; outputs are checked with ffprobe.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stvsr import upscale as command
from stvsr.data.decoding import index_video, read_frames
from stvsr.data.degradation import bicubic
from stvsr.data.png import read_png
from stvsr.errors import UserError
from stvsr.models.bicubic_blend import BicubicBlend
from stvsr.video import companions
from stvsr.video.clock import Clock, InputTimes

pytestmark = [
    pytest.mark.skipif(
        shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="needs ffmpeg and ffprobe"
    ),
    pytest.mark.usefixtures("no_hard_end"),
]

SUBTITLES = "1\n00:00:00,200 --> 00:00:00,700\nhello\n\n2\n00:00:00,800 --> 00:00:01,100\nworld\n"
X264, AAC = ["-c:v", "libx264", "-pix_fmt", "yuv420p"], ["-c:a", "aac"]
NANOSECONDS = ["-video_track_timescale", "1000000000"]


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def pictures(rate: str, size: str = "96x64", seconds: float = 1.2) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]


def sound(pitch: int = 440, seconds: float = 1.2) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=frequency={pitch}:duration={seconds}"]


def at_rate(rate: str) -> Callable[[Path], None]:
    return lambda path: ffmpeg(*pictures(rate), *sound(), *X264, "-bf", 3, *AAC, path)


def varying(path: Path) -> None:
    chosen = "select='not(eq(mod(n,7),3))+eq(n,10)'"
    ffmpeg(*pictures("30", seconds=1.5), *sound(seconds=1.5), "-vf", chosen, "-fps_mode", "vfr", *X264, *AAC, path)


def paused(path: Path) -> None:
    """A pause of 1.9 s in nanoseconds: as a composition offset, more of them than 32 bits hold."""
    gone = "select='not(between(n,4,50))'"
    ffmpeg(*pictures("25", "48x32", 2.4), "-vf", gone, "-fps_mode", "vfr", *X264, "-bf", 0, *NANOSECONDS, path)


def dropped(path: Path) -> None:
    """An AVI whose frames not captured in time are empty chunks."""
    gone = "select='not(between(n,10,12))'"
    ffmpeg(*pictures("25"), *sound(), "-vf", gone, "-fps_mode", "vfr", "-c:v", "mjpeg", "-c:a", "libmp3lame", path)


def repeated(path: Path) -> None:
    """Theora with empty packets: two of the ten frames repeat the ones before."""
    ffmpeg(*pictures("25", size="64x48", seconds=0.4), *sound(seconds=0.4), "-c:v", "libtheora", path)
    with av.open(path) as container:
        assert [packet.size for packet in container.demux(video=0)].count(0) > 1, "the last one ends decoding"


def open_gop(path: Path) -> None:
    settings = "keyint=12:bframes=3:open-gop=1:log-level=none"
    ffmpeg(*pictures("25", seconds=2), *sound(seconds=2), "-c:v", "libx265", "-x265-params", settings, *AAC, path)


def turned(path: Path, degrees: int = 90, *, mirrored: bool = False) -> None:
    upright = path.with_name("upright.mp4")
    at_rate("25")(upright)
    with av.open(upright) as source, av.open(path, "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        if mirrored:
            # Each pixel at (x, y) is shown at (y, x).
            copies[0].set_display_matrix((0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30))  # type: ignore[union-attr]
        else:
            copies[0].set_display_rotation(degrees)  # type: ignore[union-attr]
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)


def odd(path: Path) -> None:
    ffmpeg(*pictures("25", size="97x63"), *sound(), "-c:v", "libx264", "-pix_fmt", "yuv444p", *AAC, path)


def silent(path: Path, seconds: float = 1.2) -> None:
    ffmpeg(*pictures("25", seconds=seconds), *X264, path)


def late_sound(path: Path) -> None:
    ffmpeg(*pictures("25"), "-itsoffset", 0.3, *sound(seconds=1), *X264, *AAC, path)


def late_pictures(path: Path) -> None:
    # Without vfr, ffmpeg would fill the gap with repeated frames.
    ffmpeg("-itsoffset", 0.25, *pictures("30000/1001"), *sound(seconds=1.4), "-fps_mode", "vfr", *X264, *AAC, path)
    assert times(probe(path), picture_stream(probe(path)))[0] > 0.2


def two_sounds(path: Path) -> None:
    text = path.with_name("words.srt")
    text.write_text(SUBTITLES)
    streams = [option for number in range(4) for option in ("-map", number)]
    names = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra", "-metadata", "title=A title"]
    subtitles = ["-c:s", "srt" if path.suffix == ".mkv" else "mov_text"]
    both = ["-c:a:0", "aac", "-c:a:1", "libopus"]
    ffmpeg(*pictures("25"), *sound(), *sound(880), "-i", text, *streams, *X264, *both, *subtitles, *names, path)


def full_range(path: Path) -> None:
    colours = "scale=out_range=pc:out_color_matrix=bt709,setsar=16/11"
    tags = ["-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    ffmpeg(*pictures("25"), *X264, *tags, "-vf", colours, path)


def ten_bits(path: Path) -> None:
    ffmpeg(*pictures("25"), "-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le", path)


@dataclass(frozen=True)
class Case:
    """An input and the extension of its output."""

    name: str
    make: Callable[[Path], None]
    output: str


# Further rates are in tests/video/test_clock.py.
CASES = [
    Case("film.mkv", at_rate("24000/1001"), ".mp4"),
    Case("thirty.mp4", at_rate("30"), ".mov"),
    Case("sixty.mkv", at_rate("60"), ".mkv"),
    Case("varying.mp4", varying, ".mp4"),
    Case("varying.mkv", varying, ".mkv"),
    Case("varying_and_paused.mp4", paused, ".mp4"),
    Case("varying.avi", dropped, ".mkv"),
    Case("varying.ogv", repeated, ".mkv"),
    Case("open_gop.mp4", open_gop, ".mp4"),
    Case("turned.mp4", turned, ".mp4"),
    Case("turned.mp4", turned, ".mkv"),
    Case("odd.mp4", odd, ".mp4"),
    Case("silent.mp4", silent, ".mp4"),
    Case("late_sound.mp4", late_sound, ".mp4"),
    Case("late_sound.mp4", late_sound, ".mkv"),
    Case("late_pictures.mp4", late_pictures, ".mp4"),
    Case("two_sounds.mkv", two_sounds, ".mkv"),
    Case("two_sounds.mp4", two_sounds, ".mp4"),
    Case("full_range.mp4", full_range, ".mp4"),
    Case("full_range.mp4", full_range, ".mkv"),
    Case("ten_bits.mp4", ten_bits, ".mp4"),
]


def probe(path: Path) -> dict[str, Any]:
    shown = ["-show_streams", "-show_format", "-show_packets", "-show_data_hash", "md5"]
    done = subprocess.run(["ffprobe", "-v", "error", "-of", "json", *shown, path], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def picture_stream(found: dict[str, Any]) -> dict[str, Any]:
    (stream,) = (stream for stream in found["streams"] if stream["codec_type"] == "video")
    return stream


def others(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [stream for stream in found["streams"] if stream["codec_type"] != "video"]


def packets(found: dict[str, Any], stream: dict[str, Any]) -> list[dict[str, Any]]:
    return [packet for packet in found["packets"] if packet["stream_index"] == stream["index"]]


def times(found: dict[str, Any], stream: dict[str, Any]) -> list[float]:
    return sorted(float(packet["pts_time"]) for packet in packets(found, stream))


def upscaled(folder: Path, source: Path, output: str, *options: str) -> Path:
    path = folder / f"out{output}"
    arguments = ["stvsr-upscale", str(source), str(path), "--method", "bicubic", *options]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", arguments)
        command.main()
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.output[1:]}")
def test_everything_besides_the_pictures_is_kept(tmp_path: Path, case: Case) -> None:
    source = tmp_path / case.name
    case.make(source)
    path = upscaled(tmp_path, source, case.output)
    before, after = probe(source), probe(path)
    old, new = picture_stream(before), picture_stream(after)
    shown, made = times(before, old), times(after, new)

    # Every frame at its time, and one midway between each two.
    assert len(made) == 2 * len(shown) - 1
    rounding = 1.1e-3 if ".mkv" in (source.suffix, case.output) else 2e-5
    assert [t - made[0] for t in made[::2]] == pytest.approx([t - shown[0] for t in shown], abs=rounding)
    middle = [(first + second) / 2 - shown[0] for first, second in pairwise(shown)]
    assert [t - made[0] for t in made[1::2]] == pytest.approx(middle, abs=rounding)
    if not case.name.startswith("varying") and case.output != ".mkv":
        assert Fraction(new["r_frame_rate"]) == 2 * Fraction(old["r_frame_rate"])
        assert Fraction(new["avg_frame_rate"]) == 2 * Fraction(old["r_frame_rate"])
    interval = float(1 / Fraction(new["avg_frame_rate"]))
    lasts = [float(found["format"]["duration"]) for found in (before, after)]
    priming = 1024 / 44100 if case.output == ".mkv" and others(after) else 0
    assert lasts[1] == pytest.approx(lasts[0], abs=interval + priming + 2e-3)

    # Sound and subtitles: the same bytes, at the same offset from the pictures.
    assert [stream["codec_name"] for stream in others(after)] == [stream["codec_name"] for stream in others(before)]
    for ours, theirs in zip(others(after), others(before), strict=True):
        hashes = [[packet["data_hash"] for packet in packets(*pair)] for pair in ((after, ours), (before, theirs))]
        if theirs["codec_name"] == "mov_text":
            # Where nothing is shown, MP4 has empty texts, which its muxer adds.
            hashes = [list(dict.fromkeys(each)) for each in hashes]
        assert hashes[0] == hashes[1]
        starts = [
            times(*pair)[0] - shown_first
            for pair, shown_first in (((after, ours), made[0]), ((before, theirs), shown[0]))
        ]
        assert starts[0] == pytest.approx(starts[1], abs=2e-3)
        if theirs.get("tags", {}).get("language", "und") != "und":
            assert ours["tags"]["language"] == theirs["tags"]["language"]
    if "title" in before["format"].get("tags", {}):
        assert after["format"]["tags"]["title"] == before["format"]["tags"]["title"]

    # How the pictures are to be shown.
    assert (new["width"], new["height"]) == (4 * old["width"], 4 * old["height"])
    assert new.get("sample_aspect_ratio", "1:1") == old.get("sample_aspect_ratio", "1:1")
    turns = [
        [data["rotation"] for data in stream.get("side_data_list", []) if "rotation" in data] for stream in (old, new)
    ]
    assert turns[0] == turns[1]
    for tag in ("color_range", "color_space", "color_primaries", "color_transfer"):
        if tag in old:
            assert new[tag] == old[tag]
    assert new["color_space"] == old.get("color_space", "smpte170m"), "what was left open is written"


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_video_becomes_upright_where_nothing_else_can_say_it(tmp_path: Path, mirrored: bool) -> None:
    source = tmp_path / "turned.mp4"
    turned(source, mirrored=mirrored)
    frames = upscaled(tmp_path, source, "", "--no-interpolate", "--duration", "0.04")
    stored = read_frames(index_video(tmp_path / "upright.mp4"), 0, 1)[0]
    upright = stored.transpose(1, 2) if mirrored else stored.rot90(dims=(1, 2))
    first = read_png(frames / "00000001.png")
    assert first.shape == (3, 4 * 96, 4 * 64)
    small = first.float().unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).mean(dim=(2, 4))
    # Wrong: rotated by a half turn, flipped, and mirrored.
    wrong = [small.flip(dims) for dims in ((1, 2), (1,), (2,))]
    errors = [float((turn - upright.float()).abs().mean()) for turn in (small, *wrong)]
    assert errors[0] < min(errors[1:]) / 3


@pytest.mark.parametrize("name", ["12:30", "http:a", os.fsdecode(b"caf\xe9")], ids=ascii)
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".y4m", ""])
def test_names_that_ffmpeg_or_python_could_misread_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str
) -> None:
    """Relative names, as people give them: what precedes a colon is not a protocol."""
    source = Path(f"{name}.mov")
    silent(tmp_path / "a.mov", seconds=0.08)
    (tmp_path / "a.mov").rename(source)
    monkeypatch.setattr(sys, "argv", ["stvsr-upscale", str(source), f"{name}-4x{ending}", "--method", "bicubic"])
    command.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, f"{name}-4x{ending}"])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_preview_has_bicubic_at_the_left_as_it_is_shown(
    tmp_path: Path, degrees: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that makes white frames tells the halves apart."""

    class White(BicubicBlend):
        def forward(self, lr: Tensor) -> Tensor:
            return torch.ones_like(super().forward(lr))

    monkeypatch.setattr(command, "chosen_network", lambda arguments: White().eval())
    source = tmp_path / "turned.mp4"
    turned(source, degrees)
    before = read_frames(index_video(source), 0, 1)[0].float()
    path = upscaled(tmp_path, source, ".mp4", "--preview", "--no-interpolate", "--duration", "0.04")
    left, right = read_frames(index_video(path), 0, 1)[0].float().tensor_split(2, dim=-1)
    assert "side_data_list" not in picture_stream(probe(path))
    assert right.mean() > 250
    assert left.shape == (3, 4 * before.shape[1], 4 * before.shape[2])
    errors = [float((bicubic(left, factor=1 / 4).rot90(turns, (1, 2)) - before).abs().mean()) for turns in (0, 2)]
    assert errors[0] < errors[1] / 3


def test_what_does_not_fit_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "two_sounds.mkv"
    two_sounds(source)
    found = probe(upscaled(tmp_path, source, ".mp4", "--duration", "0.08"))
    assert [stream["codec_name"] for stream in others(found)] == ["aac", "opus"]
    assert "left out: subtitle stream 3 (srt cannot be copied into .mp4)" in capsys.readouterr().err


@pytest.mark.parametrize("output", [".mkv", ".mp4"])
def test_attachments_and_which_streams_players_choose_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    """Of two sound streams the second is the default, unlike usual."""
    source, text, font = tmp_path / "in.mkv", tmp_path / "words.srt", tmp_path / "font.ttf"
    text.write_text(SUBTITLES)
    font.write_bytes(b"letters" * 100)
    inputs = [*pictures("25", seconds=0.2), *sound(seconds=0.2), *sound(880, seconds=0.2), "-i", text]
    streams = [option for number in range(4) for option in ("-map", number)]
    attached = ["-attach", font, "-metadata:s:t", "mimetype=application/x-truetype-font"]
    chosen = {"v:0": "default+original", "a:0": "comment", "a:1": "default", "s:0": "forced"}
    flags = [option for stream, flag in chosen.items() for option in (f"-disposition:{stream}", flag)]
    ffmpeg(*inputs, *streams, *X264, *AAC, "-c:s", "srt", *attached, *flags, source)
    before, after = probe(source), probe(upscaled(tmp_path, source, output))
    said = capsys.readouterr().err
    old, new = others(before), others(after)
    assert [stream["disposition"]["default"] for stream in old] == [0, 1, 0, 0]
    if output == ".mkv":
        assert "left out" not in said
        assert [stream["disposition"] for stream in after["streams"]] == [
            stream["disposition"] for stream in before["streams"]
        ]
        for key in ("codec_name", "extradata_hash"):
            assert new[-1][key] == old[-1][key]
        for tag in ("filename", "mimetype"):
            assert new[-1]["tags"][tag] == old[-1]["tags"][tag]
    else:
        assert "attachment stream 4 (.mp4 cannot hold attachments)" in said
        assert [stream["disposition"]["default"] for stream in new] == [0, 1]


@pytest.mark.parametrize("output", [".y4m", ""])
def test_frames_alone_have_no_sound_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    two_sounds(tmp_path / "in.mkv")
    upscaled(tmp_path, tmp_path / "in.mkv", output, "--duration", "0.08")
    said = capsys.readouterr().err
    assert "left out: audio stream 1 (this output holds pictures only); audio stream 2" in said


@pytest.mark.parametrize(("output", "codec"), [(".mov", "flac"), (".mov", "libopus"), (".mp4", "truehd")])
def test_sound_that_a_muxer_refuses_is_left_out_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, codec: str
) -> None:
    """FFmpeg lists these codecs as supported by the container."""
    source = tmp_path / "in.mkv"
    ffmpeg(*pictures("25", seconds=0.2), *sound(seconds=0.2), *X264, "-c:a", codec, "-strict", -2, source)
    assert others(probe(upscaled(tmp_path, source, output))) == []
    codec = codec.removeprefix("lib")
    assert f"left out: audio stream 1 ({codec} cannot be copied into {output})" in capsys.readouterr().err


@pytest.mark.parametrize(("output", "before"), [(".mp4", 1.0), (".mkv", 0.1)])
def test_sound_that_was_cut_off_a_file_is_not_heard_again(tmp_path: Path, output: str, before: float) -> None:
    """Cut without re-encoding, MP4 keeps it from the key frame on, marked as not played; Matroska cannot mark it."""
    whole, source = tmp_path / "whole.mp4", tmp_path / "in.mp4"
    ffmpeg(*pictures("25", seconds=2), *sound(seconds=2), *X264, "-g", 50, *AAC, whole)
    ffmpeg("-ss", 1.2, "-i", whole, "-c", "copy", source)
    old, new = probe(source), probe(upscaled(tmp_path, source, output))
    cut, kept = (times(found, others(found)[0]) for found in (old, new))
    early = times(new, picture_stream(new))[0] - kept[0]
    assert before - 0.03 < early < before + 0.03
    # All that is heard is there, in sync.
    assert len([time for time in kept if time - kept[0] > early]) == len([time for time in cut if time > 0])


@pytest.mark.parametrize("step", [0, -80], ids=["equal", "back"])
@pytest.mark.parametrize("output", [".mp4", ".mkv"])
def test_sound_whose_times_step_back_is_kept(tmp_path: Path, output: str, step: int) -> None:
    """Recordings joined from parts have such times. Muxers refuse them, which would show after hours of work."""
    source = tmp_path / "in.mkv"
    ffmpeg(*pictures("25"), *sound(), *X264, *AAC, source)
    with av.open(source) as container:
        sounds = [packet for packet in container.demux(audio=0) if packet.size]
    content, fifth = source.read_bytes(), bytes(sounds[5])
    # In a Matroska block, two bytes of time within the cluster and one of flags precede the data.
    at = content.index(fifth) - 3
    moved = int.from_bytes(content[at : at + 2], "big") + (sounds[4].pts - sounds[5].pts) + step
    source.write_bytes(content[:at] + moved.to_bytes(2, "big", signed=True) + content[at + 2 :])
    found = probe(upscaled(tmp_path, source, output))
    (kept,) = others(found)
    after = [float(packet["dts_time"]) for packet in packets(found, kept)]
    assert after == sorted(after)
    expected = [float(packet.pts * packet.time_base) for packet in sounds]
    moved_by = [time - exact for time, exact in zip(after, expected, strict=True)]
    del moved_by[5]
    assert moved_by == pytest.approx([moved_by[0]] * len(moved_by), abs=2e-3), "the others stay in step"
    assert after[5] - after[4] < 2e-3
    with av.open(tmp_path / f"out{output}") as container:
        assert [bytes(packet) for packet in container.demux(audio=0) if packet.size] == [bytes(each) for each in sounds]


@pytest.mark.parametrize("output", [".mp4", ".mkv"])
def test_sound_that_a_muxer_refuses_in_the_end_is_left_out_and_said(
    tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broadcast has lost a piece: FFmpeg reads the damaged sound, but refuses to write it."""
    source = tmp_path / "in.ts"
    ffmpeg(*pictures("25"), *sound(), *X264, *AAC, source)
    with av.open(source) as container:
        pid = container.streams.audio[0].id
    content = source.read_bytes()
    pieces = [content[at : at + 188] for at in range(0, len(content), 188)]
    of_sound = [at for at, piece in enumerate(pieces) if int.from_bytes(piece[1:3], "big") & 0x1FFF == pid]
    # Not one that begins a packet of sound.
    lost = next(at for at in of_sound[5:] if not pieces[at][1] & 0x40)
    source.write_bytes(b"".join(pieces[:lost] + pieces[lost + 1 :]))
    found = probe(upscaled(tmp_path, source, output))
    assert len(packets(found, picture_stream(found))) == 59
    assert len(packets(found, others(found)[0])) > 40
    assert "damaged packet(s) of sound or subtitles" in capsys.readouterr().err


def test_damaged_sound_that_a_muxer_refuses_late_is_left_out_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The muxer examines E-AC-3 only on writing it, which is when it gets the next picture."""
    source = tmp_path / "in.mkv"
    ffmpeg(*pictures("25"), *sound(), *X264, "-c:a", "eac3", source)
    with av.open(source) as container:
        tenth = bytes([packet for packet in container.demux(audio=0) if packet.size][10])
    content = source.read_bytes()
    at = content.index(tenth)
    source.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    found = probe(upscaled(tmp_path, source, ".mp4"))
    assert len(packets(found, picture_stream(found))) == 59
    assert len(packets(found, others(found)[0])) > 20
    assert "damaged packet(s) of sound or subtitles" in capsys.readouterr().err


def test_subtitles_that_step_back_are_shown_with_those_before() -> None:
    """Several at the same time are usual and stay as they are."""
    last: dict[int, Fraction] = {}
    after = []
    for time in (0, 500, 500, 300, 900):
        packet = SimpleNamespace(
            pts=time, dts=time, time_base=Fraction(1, 1000), duration=200, stream_index=2, stream=None
        )
        companions._keep_order(packet, last)  # type: ignore[arg-type]
        after.append((packet.pts, packet.dts, packet.duration))
    assert after == [(time, time, 200) for time in (0, 500, 500, 500, 900)]


@pytest.mark.parametrize(
    ("start", "duration", "says"),
    [
        (6001, 60, "it begins +5999.0 s from the pictures, as in another programme"),
        (-100, 60, "it begins -102.0 s from the pictures, as in another programme"),
        (0, 60, None),
        (61, 60, None),
        (62, 60, "it begins +60.0 s from the pictures, as in another programme"),
        (5, None, None),
        (-100, None, None),
        (None, None, None),
    ],
)
def test_sound_of_another_programme_is_left_out(start: int | None, duration: int | None, says: str | None) -> None:
    """Each programme has its own clock: pictures would begin hours late."""
    stream = SimpleNamespace(start_time=start, duration=duration, time_base=Fraction(1), type="audio")
    pictures = SimpleNamespace(start=Fraction(2), last_time=Fraction(60), last_duration=Fraction(0))
    assert companions._why_not_overlapping(stream, pictures) == says  # type: ignore[arg-type]


@pytest.mark.parametrize("output", [".mp4", ".mov", ".mkv"])
def test_titles_of_old_files_that_are_no_utf_8_are_kept_as_they_are(tmp_path: Path, output: str) -> None:
    source = tmp_path / "in.avi"
    ffmpeg(*pictures("25", seconds=0.2), *sound(seconds=0.2), "-c:v", "mjpeg", "-metadata", "title=TITLE", source)
    source.write_bytes(source.read_bytes().replace(b"TITLE", b"CAF\xe9S"))
    path = upscaled(tmp_path, source, output)
    assert b"CAF\xe9S" in path.read_bytes()
    with av.open(path, metadata_errors="ignore") as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_the_sound_of_a_part_ends_with_it_also_where_its_first_frame_is_late(tmp_path: Path) -> None:
    """A screen recording has no frames while nothing moves."""
    source = tmp_path / "in.mkv"
    still = ["-vf", "select='not(between(t,1,1.79))'", "-fps_mode", "vfr"]
    ffmpeg(*pictures("25", seconds=3), *sound(seconds=3), *still, *X264, *AAC, source)
    found = probe(upscaled(tmp_path, source, ".mkv", "--start", "1.2", "--duration", "0.8"))
    (kept,) = others(found)
    assert times(found, picture_stream(found)) == pytest.approx([number / 50 for number in range(9)], abs=2e-3)
    assert times(found, kept)[-1] < 0.2


def test_a_frame_of_a_camera_that_was_turned_becomes_upright(tmp_path: Path) -> None:
    """PyAV has no name for EXIF data, and therefore hides the rotation as well."""
    exif = Image.Exif()
    exif[0x0112] = 6
    soft = Image.effect_noise((6, 4), 100).convert("RGB").resize((96, 64), Image.Resampling.BICUBIC)
    soft.save(tmp_path / "1.jpg", exif=exif, quality=95)
    ffmpeg("-i", tmp_path / "1.jpg", "-c", "copy", tmp_path / "camera.mkv")
    made = read_png(upscaled(tmp_path, tmp_path / "camera.mkv", "", "--no-interpolate") / "00000001.png")
    small = made.float().unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).mean(dim=(2, 4))
    upright = torch.from_numpy(np.array(soft.rotate(-90, expand=True))).permute(2, 0, 1).float()
    assert (small - upright).abs().mean() < 3


def test_channels_without_a_usual_layout_are_left_out_of_mp4_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.avi"
    eleven = ["-f", "lavfi", "-i", f"aevalsrc={'|'.join(11 * ['sin(440*t)'])}:d=0.2"]
    ffmpeg(*pictures("25", seconds=0.2), *eleven, "-c:v", "mjpeg", "-c:a", "pcm_s16le", source)
    assert others(probe(upscaled(tmp_path, source, ".mp4"))) == []
    assert "left out: audio stream 1 (pcm_s16le cannot be copied into .mp4)" in capsys.readouterr().err
    assert others(probe(upscaled(tmp_path, source, ".mov")))[0]["channels"] == 11


@pytest.mark.parametrize("output", [".mov", ".mkv"])
def test_channels_in_an_order_of_their_own_are_copied(tmp_path: Path, output: str) -> None:
    """Cameras and editors label them so. In a separate process, because asking PyAV for such a layout ends it."""
    source = tmp_path / "in.mov"
    four = ["-f", "lavfi", "-i", "aevalsrc=sin(440*t)|0|0|0:d=0.2", "-af", "channelmap=channel_layout=FL+FR+LFE+FC"]
    ffmpeg(*pictures("25", seconds=0.2), *four, "-c:v", "libx264", "-c:a", "pcm_s16le", source)
    program = "from stvsr.upscale import main; main()"
    made = tmp_path / f"out{output}"
    subprocess.run([sys.executable, "-c", program, source, made, "--method", "bicubic"], check=True)
    assert others(probe(made))[0]["channels"] == 4


@pytest.mark.parametrize("output", [".mp4", ".m4v", ".mov", ".mkv"])
@pytest.mark.parametrize("name", ["cam.avi", "cam.mkv", "cam.mov"])
def test_stereo_of_a_camera_is_kept_though_its_layout_is_not_told(tmp_path: Path, name: str, output: str) -> None:
    source = tmp_path / name
    stereo = ["-f", "lavfi", "-i", "aevalsrc=sin(440*t)|sin(500*t):d=0.2"]
    ffmpeg(*pictures("25", seconds=0.2), *stereo, "-c:v", "mjpeg", "-c:a", "pcm_s16le", source)
    # QuickTime may omit the layout as well: its `chan` atom becomes a free one.
    source.write_bytes(source.read_bytes().replace(b"chan", b"free"))
    heard = []
    for path in (source, upscaled(tmp_path, source, output)):
        with av.open(path) as container:
            frames = list(container.decode(audio=0))
            assert {frame.layout.nb_channels for frame in frames} == {2}
            heard.append(b"".join(bytes(frame.planes[0])[: frame.samples * 4] for frame in frames))
    assert heard[0] == heard[1]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("in.webm", ["libvpx-vp9", "-auto-alt-ref", 0], "yuva420p"),
        ("in.mov", ["prores_ks", "-profile:v", 4444], "yuva444p10le"),
        ("in.mkv", ["ffv1"], "bgra"),
        ("opaque.mkv", ["ffv1"], "bgr0"),
    ],
)
def test_transparency_that_is_lost_is_said_and_no_longer_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, codec: list[object], pixels: str
) -> None:
    source = tmp_path / name
    ffmpeg(*pictures("25", seconds=0.2), "-vf", f"format={pixels}", "-c:v", *codec, source)
    made = picture_stream(probe(upscaled(tmp_path, source, ".mkv")))
    assert "alpha_mode" not in {key.lower() for key in made["tags"]}
    assert ("the video has an alpha channel; it is dropped" in capsys.readouterr().err) == (name != "opaque.mkv")


@pytest.mark.parametrize("transparent", [False, True])
def test_a_gif_is_said_to_be_transparent_only_if_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], transparent: bool
) -> None:
    """FFmpeg gives every GIF an alpha channel."""
    frames = [Image.new("RGBA", (32, 32), (255, 40 * n, 0, 255)) for n in range(3)]
    for frame in frames:
        frame.paste((0, 0, 0, 0) if transparent else (0, 0, 0, 255), (8, 8, 16, 16))
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    upscaled(tmp_path, tmp_path / "in.gif", ".mkv")
    assert ("the video has an alpha channel" in capsys.readouterr().err) == transparent


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (X264, []),
        ([*X264, "-flags", "+ilme+ildct"], ["the video is interlaced; deinterlace it first (ffmpeg -vf bwdif), or"]),
        (["-c:v", "ffv1", "-pix_fmt", "yuv420p10le"], ["the video has 10 bits per sample; they are rounded to 8"]),
    ],
    ids=["usual", "interlaced", "ten-bits"],
)
def test_what_spoils_the_pictures_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], expected: list[str]
) -> None:
    ffmpeg(*pictures("25", seconds=0.2), *settings, tmp_path / "in.mkv")
    upscaled(tmp_path, tmp_path / "in.mkv", ".mkv")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("the video ")]
    assert len(warnings) == len(expected)
    assert all(map(str.startswith, warnings, expected))


def test_what_frames_carry_and_new_ones_do_not_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """HDR10: the brightness the film was made for."""
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
    settings = ["-c:v", "libx265", "-x265-params", f"log-level=none:hdr10=1:{display}", "-pix_fmt", "yuv420p10le"]
    ffmpeg(*pictures("25", seconds=0.2), *settings, tmp_path / "hdr.mp4")
    upscaled(tmp_path, tmp_path / "hdr.mp4", ".mp4")
    assert "the video carries HDR brightness, which will be dropped" in capsys.readouterr().err


def test_sound_with_a_cover_picture_is_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ffmpeg(*pictures("25", seconds=0.04), "-frames:v", 1, tmp_path / "cover.png")
    cover = ["-map", 0, "-map", 1, "-c:v", "png", "-disposition:v", "attached_pic"]
    ffmpeg(*sound(seconds=0.2), "-i", tmp_path / "cover.png", *cover, *AAC, tmp_path / "song.m4a")
    with pytest.raises(SystemExit):
        upscaled(tmp_path, tmp_path / "song.m4a", ".mp4")
    assert "song.m4a: has no video stream" in capsys.readouterr().err


def test_times_that_y4m_and_png_cannot_keep_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, steady = tmp_path / "varying.mkv", tmp_path / "steady.mp4"
    varying(source)
    silent(steady)
    warned = []
    for path, output in ((source, ".y4m"), (source, ""), (source, ".mkv"), (steady, ".y4m"), (steady, "")):
        upscaled(tmp_path, path, output, "--duration", "0.4", "--overwrite")
        warned.append(
            "at a constant rate some frames will be early or late; choose .mp4 or .mkv" in capsys.readouterr().err
        )
    assert warned == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("output", "codec", "remedy"),
    [
        (".mkv", "h264", None),
        (".mkv", "h265", None),
        (".mp4", "vp9", None),
        (".mov", "prores", None),
        (".y4m", None, None),
        (".mkv", "av1", "choose .mp4 to"),
        (".mkv", "prores", "choose .mov to"),
        (".mkv", "ffv1", "choose .mp4 and another codec to"),
        (".webm", "vp9", "choose .mp4 to"),
    ],
)
def test_pixels_keep_their_shape_or_their_loss_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, codec: str | None, remedy: str | None
) -> None:
    source = tmp_path / "in.mp4"
    ffmpeg(*pictures("25", seconds=0.08), "-vf", "setsar=16/11", *X264, source)
    options = [] if codec is None else ["--codec", codec]
    made = picture_stream(probe(upscaled(tmp_path, source, output, *options)))
    warning = capsys.readouterr().err
    assert (made.get("sample_aspect_ratio") == "16:11") == (remedy is None)
    assert ("pixels are not square" in warning) == (remedy is not None)
    assert (remedy or "") in warning


def test_what_a_folder_of_frames_does_not_tell_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("wide.mp4", ["-vf", "setsar=16/11"]), ("square.mp4", [])):
        ffmpeg(*pictures("25", seconds=0.08), *options, *X264, tmp_path / name)
        frames = upscaled(tmp_path, tmp_path / name, "", "--overwrite")
        assert len(list(frames.iterdir())) == 3
        assert (
            "are 1.45455 times as wide as they are high, which PNG files do not record" in capsys.readouterr().err
        ) == (name == "wide.mp4")


def test_slow_motion_keeps_subtitles_in_step_and_leaves_sound_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "two_sounds.mkv"
    two_sounds(source)
    found = probe(upscaled(tmp_path, source, ".mkv", "--slow-motion"))
    assert [stream["codec_name"] for stream in others(found)] == ["subrip"]
    assert times(found, others(found)[0]) == pytest.approx([0.4, 1.6])
    assert float(packets(found, others(found)[0])[0]["duration_time"]) == pytest.approx(1.0)
    assert times(found, picture_stream(found))[-1] == pytest.approx(58 / 25)
    assert "in slow motion it would be out of sync" in capsys.readouterr().err


def test_a_part_has_the_sound_of_that_part(tmp_path: Path) -> None:
    source = tmp_path / "pal.mp4"
    at_rate("25")(source)
    before = probe(source)
    after = probe(upscaled(tmp_path, source, ".mp4", "--start", "0.4", "--duration", "0.4"))
    assert times(after, picture_stream(after)) == pytest.approx([number / 50 for number in range(19)])
    (old,), (new,) = others(before), others(after)
    kept = {packet["data_hash"]: float(packet["pts_time"]) for packet in packets(after, new)}
    expected = {
        packet["data_hash"]: float(packet["pts_time"]) - 0.4
        for packet in packets(before, old)
        if 0.4 <= float(packet["pts_time"]) < 0.8
    }
    assert list(kept) == list(expected)
    assert list(kept.values()) == pytest.approx(list(expected.values()), abs=1e-4)


def test_subtitles_that_are_shown_where_a_part_begins_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    two_sounds(source)
    found = probe(upscaled(tmp_path, source, ".mkv", "--start", "0.4"))
    (subtitles,) = (stream for stream in others(found) if stream["codec_type"] == "subtitle")
    assert times(found, subtitles) == pytest.approx([0, 0.4])
    assert [float(packet["duration_time"]) for packet in packets(found, subtitles)] == pytest.approx([0.3, 0.3])


def test_a_subtitle_ends_with_the_part(tmp_path: Path) -> None:
    """One that lasted longer once made the file longer than its pictures."""
    text, source = tmp_path / "words.srt", tmp_path / "in.mkv"
    text.write_text("1\n00:00:00,200 --> 00:00:01,100\nhello\n\n2\n00:00:00,600 --> 00:00:01,150\nworld\n")
    ffmpeg(*pictures("25"), "-i", text, *X264, "-c:s", "srt", source)
    found = probe(upscaled(tmp_path, source, ".mkv", "--start", "0.4", "--duration", "0.4"))
    (subtitles,) = others(found)
    assert times(found, subtitles) == pytest.approx([0, 0.2])
    assert [float(packet["duration_time"]) for packet in packets(found, subtitles)] == pytest.approx([0.4, 0.2])
    assert float(found["format"]["duration"]) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("kind", ["video", "data"])
def test_covers_further_videos_and_data_are_left_out(kind: str) -> None:
    """Pictures would keep their old size; data would refer to other frames."""
    stream = SimpleNamespace(type=kind, codec_context=SimpleNamespace(name="mjpeg"))
    clock = Clock(InputTimes(Fraction(25)), True, False)
    assert companions._why_not_copied(stream, ".mp4", clock) is not None  # type: ignore[arg-type]


def test_a_stream_of_an_unknown_codec_is_left_out() -> None:
    stream = SimpleNamespace(type="audio", codec_context=None)
    clock = Clock(InputTimes(Fraction(25)), True, False)
    reason = companions._why_not_copied(stream, ".mkv", clock)  # type: ignore[arg-type]
    assert reason == "its codec is unknown to FFmpeg"


@pytest.mark.parametrize("output", [".mov", ".mp4", ".mkv"])
def test_place_and_date_of_a_phone_are_kept(tmp_path: Path, output: str) -> None:
    """The muxers of MP4 and MOV drop tags that are not in their list unless told not to."""
    noted = {
        "com.apple.quicktime.location.ISO6709": "+48.1000+011.5000/",
        "com.apple.quicktime.creationdate": "2026-01-01T10:00:00+0100",
        "com.apple.quicktime.make": "Apple",
        "title": "A title",
    }
    options = [option for name, value in noted.items() for option in ("-metadata", f"{name}={value}")]
    ffmpeg(*pictures("25", seconds=0.2), *X264, "-movflags", "use_metadata_tags", *options, tmp_path / "phone.mov")
    found = probe(upscaled(tmp_path, tmp_path / "phone.mov", output))["format"]["tags"]
    assert {name.lower(): value for name, value in noted.items()}.items() <= {
        name.lower(): value for name, value in found.items()
    }.items()


def test_what_describes_the_bit_stream_of_the_input_is_not_said_of_the_output(tmp_path: Path) -> None:
    """mkvmerge writes such tags."""
    noted = {"BPS": "999", "NUMBER_OF_FRAMES-eng": "5", "_STATISTICS_TAGS": "BPS", "ENCODER": "x", "title": "A title"}
    options = [option for name, value in noted.items() for option in ("-metadata:s:v", f"{name}={value}")]
    ffmpeg(*pictures("25", seconds=0.2), *X264, *options, tmp_path / "in.mkv")
    made = picture_stream(probe(upscaled(tmp_path, tmp_path / "in.mkv", ".mkv")))["tags"]
    assert {name: made[name] for name in noted if name in made} == {"title": "A title"}


def test_chapters_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, marked = tmp_path / "silent.mp4", tmp_path / "marked.mkv"
    silent(source)
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    chapters = ";FFMETADATA1\n" + chapter.format(0, 500, "one") + chapter.format(500, 1200, "two")
    (tmp_path / "chapters.txt").write_text(chapters)
    ffmpeg("-i", source, "-i", tmp_path / "chapters.txt", "-map_metadata", 1, "-c", "copy", marked)
    for options, expected in (
        ([], [0, 0.5, 0.5, 1.2]),
        (["--start", "0.4"], [0, 0.1, 0.1, 0.8]),
        (["--duration", "0.6"], [0, 0.5, 0.5, 0.6]),
        (["--duration", "0.4"], [0, 0.4]),
    ):
        path = upscaled(tmp_path, marked, ".mp4", "--overwrite", *options)
        done = subprocess.run(
            ["ffprobe", "-v", "error", "-of", "json", "-show_chapters", path], capture_output=True, check=True
        )
        found = json.loads(done.stdout)["chapters"]
        assert [chapter["tags"]["title"] for chapter in found] == ["one", "two"][: len(expected) // 2]
        assert [float(c[side]) for c in found for side in ("start_time", "end_time")] == pytest.approx(expected)
    # Chapters of an MP4 are also one of its streams.
    capsys.readouterr()
    upscaled(tmp_path, path, ".mkv")
    assert "left out" not in capsys.readouterr().err


def test_a_packet_that_an_edit_cuts_out_of_the_middle_is_not_heard() -> None:
    """The output has no such edit. What MP4 hides before the beginning is kept, as decoders need it."""

    def packet(pts: int, hidden: bool) -> SimpleNamespace:
        stream = SimpleNamespace(type="audio", start_time=0)
        told = {"pts": pts, "dts": pts, "size": 1, "duration": 1, "time_base": Fraction(1, 10), "stream_index": 1}
        return SimpleNamespace(**told, stream=stream, is_discard=hidden)

    given = [packet(pts, pts in (-1, 3, 4)) for pts in range(-1, 7)]
    container = SimpleNamespace(streams={1: SimpleNamespace(type="audio")}, demux=lambda streams: given)
    kept = companions.Companions(
        path=Path("a.mp4"),
        usual_channels=[],
        streams=[1],
        left_out=[],
        zero=Fraction(0),
        begin=-inf,
        end=inf,
        stretch=1,
        picture_stream=0,
        hides=True,
    )
    heard = [packet.pts for packet in kept.packets(container, {1: object()})]  # type: ignore[arg-type, dict-item]
    assert heard == [-1, 0, 1, 2, 5, 6]


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv"])
def test_names_of_sound_tracks_are_kept(tmp_path: Path, output: str) -> None:
    silent(tmp_path / "silent.mp4", seconds=0.3)
    named = ["-metadata:s:a:0", "title=Commentary", "-c", "copy", "-c:a", "aac"]
    ffmpeg("-i", tmp_path / "silent.mp4", *sound(seconds=0.3), "-map", 0, "-map", 1, *named, tmp_path / "in.mkv")
    ffmpeg("-i", tmp_path / "in.mkv", "-map", 0, "-c", "copy", tmp_path / "in.mp4")
    # Read by PyAV: FFmpeg 5's ffprobe shows names in MP4 under neither key.
    with av.open(upscaled(tmp_path, tmp_path / "in.mp4", output)) as container:
        told = container.streams.audio[0].metadata
    assert "Commentary" in (told.get("title"), told.get("name"))


def test_sound_that_begins_late_in_a_broadcast_is_kept(tmp_path: Path) -> None:
    """Its stream is listed from the beginning, but without its codec."""
    late = ["-itsoffset", 8, *sound(seconds=1), "-map", 0, "-map", 1, "-c:v", "mpeg2video", "-c:a", "ac3"]
    ffmpeg(*pictures("5", size="64x48", seconds=10), *late, tmp_path / "in.ts")
    made = upscaled(tmp_path, tmp_path / "in.ts", "out.mkv", "--start", "7.6", "--duration", "1")
    (copied,) = others(probe(made))
    assert copied["codec_name"] == "ac3"


def test_a_single_picture_lasts_as_long_as_its_sound_which_may_begin_late(tmp_path: Path) -> None:
    late = ["-itsoffset", 2, *sound(seconds=3), "-map", 0, "-map", 1, *X264, *AAC]
    ffmpeg(*pictures("1/5", size="64x48", seconds=5), *late, tmp_path / "in.mp4")
    found = probe(upscaled(tmp_path, tmp_path / "in.mp4", "out.mp4"))
    assert float(picture_stream(found)["duration"]) == 5
    assert len(others(found)) == 1


def test_a_cut_from_the_middle_of_an_open_gop_is_read(tmp_path: Path) -> None:
    """Its first frames cannot be decoded, and in Matroska have no timestamp."""
    settings = ["-c:v", "libx265", "-x265-params", "open-gop=1:keyint=10:bframes=3:log-level=none"]
    ffmpeg(*pictures("25"), *settings, tmp_path / "whole.mp4")
    ffmpeg("-ss", 0.5, "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "in.mkv")
    with av.open(tmp_path / "in.mkv") as container:
        assert any(packet.pts is None and packet.size for packet in container.demux(video=0))
        container.seek(0)
        given = sum(1 for _ in container.decode(video=0))
    made = upscaled(tmp_path, tmp_path / "in.mkv", "out.mkv")
    assert len(times(probe(made), picture_stream(probe(made)))) == 2 * given - 1


def test_a_cut_that_begins_before_time_0_is_refused_where_its_frames_have_no_time(tmp_path: Path) -> None:
    """Matroska stores them so; the frames that have a timestamp need the others."""
    ffmpeg(*pictures("25"), "-c:v", "libx264", "-g", "50", tmp_path / "whole.mp4")
    cut = ["-ss", 0.5, "-i", tmp_path / "whole.mp4", "-c", "copy", "-avoid_negative_ts", "disabled"]
    ffmpeg(*cut, tmp_path / "in.mkv")
    with pytest.raises(UserError, match="a frame has no timestamp"):
        index_video(tmp_path / "in.mkv")
