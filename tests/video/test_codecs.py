"""Supported pairs of codec and container can be written and read back; others are refused with a message."""

import io
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import moving_frames
from stvsr.data.containers import open_output
from stvsr.errors import InvalidInput
from stvsr.video import sinks
from stvsr.video.clock import Clock, InputTimes
from stvsr.video.codecs import BIG_FRAME, CODECS, CONTAINERS, Encoding, chosen_codec
from stvsr.video.colour import BT2020_NCL, Colour, FromRgb, ToRgb
from stvsr.video.muxing import EncodedVideo, Incomplete, Unreadable, write_video
from stvsr.video.outputs import check_form
from stvsr.video.picture import Picture
from stvsr.video.sinks import SegmentedVideo, frame_encoder
from stvsr.video.sources import Part, VideoFile

PAIRS = [(extension, codec) for extension, container in CONTAINERS.items() for codec in container.codecs]


def write(path: Path, encoding: Encoding, frames: Tensor, colour: Colour, *, first: int = 7) -> None:
    """Writes a video of 24000/1001 frames per second in segments of seven frames; the first may have fewer."""
    clock = Clock(InputTimes(Fraction(24000, 1001)), interpolated=False, slow_motion=False)
    height, width = frames[0].shape[1:]
    picture = Picture(width, height, colour)

    def join(segments: list[Path], count: int) -> Path:
        assert len(segments) == -(-(len(frames) + 7 - first) // 7)
        write_video(path, EncodedVideo(segments, count, clock, encoding.codec, picture), None)
        return path

    sink = SegmentedVideo(
        path.parent, picture=picture, rate=clock.rate, encoding=encoding, windows_per_segment=1, join=join
    )
    for number, frame in enumerate(frames):
        sink.write((number + 7 - first) // 7, number, frame)
    assert sink.finish(len(frames)) == path


class MadeUp:
    """An encoder whose decoding times are nonsense."""

    def __init__(self, *arguments: Any) -> None:
        self.stream = frame_encoder(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "stream":
            super().__setattr__(name, value)
        else:
            setattr(self.stream, name, value)

    def encode(self, frame: av.VideoFrame | None = None) -> list[Any]:
        packets = self.stream.encode(frame)
        for packet in packets:
            packet.dts = 2**40 - packet.pts
        return packets


@pytest.mark.parametrize("count", [1, 2, 13, 78])
def test_decoding_times_that_an_encoder_makes_up_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """x265 sometimes does for segments of one or two frames. More than ten segments are joined as well."""
    monkeypatch.setattr(sinks, "frame_encoder", MadeUp)
    write(tmp_path / "whole.mp4", Encoding("h265"), moving_frames(count, (64, 96)), Colour())
    with av.open(tmp_path / "whole.mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([number * 1001 / 24000 for number in range(count)], abs=6e-4)


def test_segments_that_reorder_frames_follow_one_that_does_not(tmp_path: Path) -> None:
    """For example, the video may begin with a scene of one frame."""
    write(tmp_path / "whole.mp4", Encoding("h264"), moving_frames(13, (64, 96)), Colour(), first=1)
    with av.open(tmp_path / "whole.mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([number * 1001 / 24000 for number in range(13)], abs=6e-4)


def test_a_segment_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed job takes a segment that has its final name for complete."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(sorted(path.name for path in tmp_path.iterdir())))
    frames = [torch.zeros(3, 48, 64, dtype=torch.uint8)] * 8
    write(tmp_path / "a.mkv", Encoding("ffv1"), frames, Colour())
    assert flushed == [["000000.mkv.part"], ["000000.mkv", "000001.mkv.part"]]


def test_a_unit_too_fine_for_containers_is_given_up_for_that_of_the_frames() -> None:
    clock = Clock(InputTimes(Fraction(25)), interpolated=True, slow_motion=False)
    for start, unit in ((Fraction(1, 60), Fraction(1, 300)), (Fraction(1, 2**31 - 1), Fraction(1, 50))):
        assert EncodedVideo([], 0, clock, "h264", Picture(16, 16, Colour()), start).unit == unit
    nanoseconds = InputTimes(Fraction(25), np.array([0, 40, 2000]) * 10**6, Fraction(1, 10**9))
    clock = Clock(nanoseconds, interpolated=True, slow_motion=False)
    assert EncodedVideo([], 0, clock, "h264", Picture(16, 16, Colour())).unit == Fraction(1, 10**6)


@pytest.mark.parametrize(("extension", "codec"), PAIRS, ids=lambda value: value)
def test_every_codec_goes_into_every_container_that_names_it(tmp_path: Path, extension: str, codec: str) -> None:
    """13 frames in two segments, joined, are read back in order and at their times."""
    frames = moving_frames(13, (64, 96))
    path = tmp_path / f"whole{extension}"
    write(path, Encoding(chosen_codec(path, codec)), frames, Colour())
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == pytest.approx(Fraction(24000, 1001), rel=1e-5)
        if codec == "h265" and extension != ".mkv":
            assert stream.codec_context.codec_tag == "hvc1", "Apple's players take no other"
        decoded = list(container.decode(stream))
        convert = ToRgb(Colour.of(decoded[0]))
        read = torch.stack([convert(frame) for frame in decoded]).float()
    # A container may round to milliseconds.
    assert [frame.time for frame in decoded] == pytest.approx([n * 1001 / 24000 for n in range(13)], abs=6e-4)
    errors = torch.stack([(read - frame.float()).square().mean(dim=(1, 2, 3)) for frame in frames])
    assert errors.argmin(dim=0).tolist() == list(range(13)), "each is nearest to its own original"
    if codec == "ffv1":
        assert errors.diagonal().max() == 0
    else:
        assert errors.diagonal().max() < 255**2 * 10**-2.5


ENCODINGS = [
    *((extension, Encoding(codec)) for extension, codec in PAIRS),
    # Stored in full range, whatever range is requested.
    *((".mp4", Encoding("h264", chosen_pixel_format=name)) for name in ("gray", "gray10le", "yuvj420p")),
    *((".mov", Encoding("h265", chosen_pixel_format=name)) for name in ("gray", "gray10le", "yuvj444p")),
    *((".mkv", Encoding("ffv1", chosen_pixel_format=name)) for name in ("gray", "gray16le", "ya8")),
]


@pytest.mark.parametrize("full", [False, True], ids=["studio", "full"])
@pytest.mark.parametrize(
    ("extension", "encoding"),
    ENCODINGS,
    ids=lambda value: value if isinstance(value, str) else f"{value.codec}-{value.pixel_format}",
)
def test_every_codec_keeps_contrast_and_what_its_colours_mean(
    tmp_path: Path, extension: str, encoding: Encoding, full: bool
) -> None:
    """This holds for every range they are stored in."""
    levels = (0, 64, 192, 255)
    frame = torch.tensor(levels, dtype=torch.uint8).repeat_interleave(32).expand(3, 64, -1)
    path = tmp_path / f"whole{extension}"
    write(path, encoding, [frame] * 5, Colour(BT2020_NCL, full, primaries=9, transfer=16))
    with av.open(path) as container:
        decoded = next(container.decode(video=0))
    colour = Colour.of(decoded)
    assert colour.primaries == 9
    assert decoded.color_trc == 16
    assert encoding.pixel_format.startswith(("bgr", "gray", "ya")) or colour.matrix == BT2020_NCL
    assert ToRgb(colour)(decoded)[:, 32, 16::32].float().mean(0).tolist() == pytest.approx(levels, abs=2)


@pytest.mark.parametrize(
    ("name", "codec", "says"),
    [
        ("out.xyz", None, r"unknown extension '\.xyz'; expected \.mp4"),
        (
            "out.webm",
            "h264",
            r"--codec h264 is not supported in \.webm; expected vp9, av1, or an output that ends in \.mp4",
        ),
        ("out.mp4", "ffv1", r"--codec ffv1 is not supported in \.mp4; .* ends in \.mkv"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, codec: str | None, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        chosen_codec(Path(name), codec)


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        (Encoding("ffv1", crf=3), "ffv1 has no such setting"),
        (Encoding("h264", crf=99), r"--crf 99; expected 0 \(best\) to 51 with h264"),
        (Encoding("h265", crf=52), r"--crf 52; expected 0 \(best\) to 51 with h265"),
        (Encoding("vp9", crf=64), r"--crf 64; expected 0 \(best\) to 63 with vp9"),
        (Encoding("av1", crf=0), r"--crf 0; expected 1 \(best\) to 63 with av1"),
        (Encoding("h264", chosen_pixel_format="rgb48be"), "h264 does not support it; expected one of yuv420p"),
        # Its encoder lists this format but refuses it.
        (Encoding("vp9", chosen_pixel_format="gbrap"), "vp9 does not support it; expected one of yuv420p"),
    ],
)
def test_settings_an_encoder_does_not_take_are_refused(encoding: Encoding, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        encoding.check()


@pytest.mark.parametrize(
    ("codec", "size", "says"),
    [
        (
            "h264",
            (16388, 64),
            "frames of 16388x64; h264 supports at most 16384x16384: choose --codec h265, ",
        ),
        (
            "av1",
            (64, 8708),
            "av1 supports at most 16384x8704: choose --codec h264, --codec h265, --codec vp9",
        ),
        # Its encoder would hang.
        (
            "av1",
            (400, 16),
            "av1 needs at least 32 pixels a side: choose --codec h264, --codec vp9, or a folder",
        ),
        # Its encoder writes out of bounds.
        (
            "h265",
            (48, 400),
            "h265 needs at least 64 pixels a side: choose --codec h264, --codec av1, --codec vp9, or a folder",
        ),
    ],
)
def test_frames_too_large_or_too_small_for_an_encoder_are_refused_before_any_work(
    codec: str, size: tuple[int, int], says: str
) -> None:
    Encoding(codec).check_size(".mp4", *CODECS[codec].largest)
    Encoding(codec).check_size(".mp4", CODECS[codec].smallest, 400)
    with pytest.raises(InvalidInput, match=says):
        Encoding(codec).check_size(".mp4", *size)


@pytest.mark.parametrize("codec", CODECS)
def test_every_pixel_format_can_be_read_back_from_a_file_or_is_refused_before_the_work(
    tmp_path: Path, codec: str
) -> None:
    with pytest.raises(InvalidInput, match="expected one of") as refused:
        Encoding(codec, chosen_pixel_format="none").check()
    forms, frames = str(refused.value).split("expected one of ")[1].split(", "), moving_frames(2, (64, 64))
    for extension in (extension for extension, kind in CONTAINERS.items() if codec in kind.codecs):
        for form in forms:
            path, encoding = tmp_path / f"{form}{extension}", Encoding(codec, chosen_pixel_format=form)
            if (codec, form, extension) == ("vp9", "yuv440p", ".mp4"):
                with pytest.raises(InvalidInput, match=r"--pixel-format yuv440p: .* ends in \.mkv or \.webm"):
                    check_form(path, encoding)
                with pytest.raises(
                    Unreadable, match=r"only 0 of 2 frames can be read from the finished \.mp4 file; choose"
                ):
                    write(path, encoding, frames, Colour())
                assert not path.exists()
                continue
            check_form(path, encoding)
            write(path, encoding, frames, Colour())
            with av.open(path) as container:
                assert len(list(container.decode(video=0))) == 2, path.name


def test_a_form_that_cannot_be_read_back_from_a_file_is_refused_before_the_work() -> None:
    chosen = Encoding("vp9", chosen_pixel_format="yuv440p")
    with pytest.raises(InvalidInput, match=r"--pixel-format yuv440p: vp9 with it is unreadable in \.mp4; choose"):
        check_form(Path("out.MP4"), chosen)
    check_form(Path("out.webm"), chosen)
    check_form(Path("out.mp4"), Encoding("vp9"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda names: names[1].unlink(), "the segments hold 9 of 16 frames; start over"),
        (lambda names: shutil.copy(names[0], names[1]), "hold 9 of 16 frames, and 7 unexpected ones; start"),
    ],
    ids=["missing", "twice"],
)
def test_segments_that_do_not_hold_each_frame_once_are_not_joined(
    tmp_path: Path, change: Callable[[list[Path]], object], says: str
) -> None:
    """Another version of this program may have made some: without the check, missing frames went unnoticed."""
    write(tmp_path / "a.mkv", Encoding("h264"), [torch.zeros(3, 48, 64, dtype=torch.uint8)] * 16, Colour())
    segments = sorted(tmp_path.glob("0*.mkv"))
    change(segments)
    clock = Clock(InputTimes(Fraction(25)), interpolated=False, slow_motion=False)
    left = [path for path in segments if path.exists()]
    with pytest.raises(Incomplete, match=says):
        write_video(tmp_path / "b.mkv", EncodedVideo(left, 16, clock, "h264", Picture(64, 48, Colour())), None)


@pytest.mark.parametrize("codec", CODECS)
def test_big_frames_take_no_more_of_an_encoder_for_each_pixel(codec: str) -> None:
    encoding = Encoding(codec)
    assert 0 < encoding.frame_bytes(BIG_FRAME + 1) <= encoding.frame_bytes(BIG_FRAME) < 500


@pytest.mark.parametrize("codec", CODECS)
def test_pixel_formats_that_are_named_can_be_written(codec: str) -> None:
    with pytest.raises(InvalidInput, match="expected one of") as refused:
        Encoding(codec, chosen_pixel_format="none").check()
    named = str(refused.value).split("expected one of ")[1].split(", ")
    assert CODECS[codec].pixel_format in named
    picture, frame = Picture(64, 64, Colour()), torch.zeros(3, 64, 64, dtype=torch.uint8)
    for form in named:
        encoding = Encoding(codec, chosen_pixel_format=form)
        encoding.check()
        with open_output(io.BytesIO(), "matroska") as container:
            stream = sinks.frame_encoder(container, encoding, picture, Fraction(25))
            converted = FromRgb(encoding.stored(picture.colour), form)(frame)
            converted.pts, converted.time_base = 0, Fraction(1, 25)
            assert [*stream.encode(converted), *stream.encode()], form


def test_y4m_has_the_colours_that_readers_assume(tmp_path: Path) -> None:
    """Y4M records no matrix; readers guess it from the size, which is the enlarged frame's."""
    picture = Picture(1280, 720, Colour.for_size(320, 180))
    sink = sinks.Y4mOutput(tmp_path / "a.y4m", picture=picture, rate=Fraction(25))
    green = torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 720, 1280)
    sink.write(0, 0, green)
    sink.finish(1)
    (read,) = VideoFile(tmp_path / "a.y4m", Part()).frames()
    assert (read.int() - green.int()).abs().max() <= 3


def test_usual_settings_are_taken_and_quality_can_be_chosen() -> None:
    for name in CODECS:
        Encoding(name).check()
        Encoding(name, CODECS[name].crf and CODECS[name].worst_crf).check()
        Encoding(name, CODECS[name].crf and CODECS[name].best_crf).check()
    assert Encoding("h264").options(100)["crf"] == "18"
    assert Encoding("h265", crf=30).options(100)["crf"] == "30"
    assert "crf" not in Encoding("prores").options(100)


def test_big_frames_are_looked_ahead_at_less() -> None:
    assert "rc-lookahead" not in Encoding("h264").options(BIG_FRAME)
    assert Encoding("h264").options(BIG_FRAME + 1)["rc-lookahead"] == "8"


def test_more_frames_per_second_than_the_encoder_takes_are_refused_before_the_work() -> None:
    Encoding("av1").check_rate(".mp4", Fraction(240))
    Encoding("h264").check_rate(".mp4", Fraction(2000))
    with pytest.raises(InvalidInput, match=r"480 frames per second; av1 supports at most 240: choose another --codec"):
        Encoding("av1").check_rate(".mp4", Fraction(480))


def test_an_encoder_that_is_not_there_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "av1", replace(CODECS["av1"], encoder="libnowhere"))
    with pytest.raises(InvalidInput, match="--codec av1: PyAV was built without libnowhere"):
        Encoding("av1").check()


@pytest.mark.parametrize(("extension", "codec"), [(".mkv", "h264"), (".webm", "vp9")])
def test_frames_closer_than_a_file_can_tell_apart_are_refused(extension: str, codec: str) -> None:
    """Otherwise two frames would get the same time, and no program would read all of them."""
    Encoding(codec).check_rate(extension, Fraction(1000))
    with pytest.raises(
        InvalidInput, match=rf"1920 frames per second; \{extension} stores whole milliseconds: choose \.mp4"
    ):
        Encoding(codec).check_rate(extension, Fraction(1920))
