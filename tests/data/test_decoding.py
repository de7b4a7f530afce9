"""Every frame of a test video carries its number in its pixels, so each read tells which frames it got."""

import errno
import os
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from stvsr.data import decoding, packets
from stvsr.data.decoding import index_video, read_frames
from stvsr.errors import DamagedClip, InvalidInput, UserError

needs_decord = pytest.mark.skipif(decoding.decord is None, reason="decord has no wheel for this machine")

FRAMES = 60
HEIGHT, WIDTH = 64, 96
CLOSED = "keyint=12:min-keyint=12:scenecut=0:bframes=3:log-level=none"
OPEN = f"{CLOSED}:open-gop=1:b-adapt=0"
IN_ORDER = "keyint=12:bframes=0:log-level=none"


def picture(number: int) -> np.ndarray:
    """Eight blocks spell `number` in binary over a moving gradient, which makes encoders use B-frames."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.repeat(((2 * x + y + 3 * number) % 160 + 40)[..., None], 3, axis=2).astype(np.uint8)
    for bit in range(8):
        image[:16, 12 * bit : 12 * (bit + 1)] = 235 if number >> bit & 1 else 16
    return image


def numbers(frames: torch.Tensor) -> list[int]:
    """The numbers that `(t, 3, 64, 96)` frames carry."""
    blocks = frames[:, :, 2:14].float().mean(dim=(1, 2)).unflatten(1, (8, 12))[:, :, 2:10].mean(2) > 128
    return [sum(1 << bit for bit in range(8) if row[bit]) for row in blocks.tolist()]


def irregular(number: int) -> int:
    """A presentation time in ms that jitters like a phone's, with a pause in the middle."""
    return 33 * number + 7 * number**2 % 29 + (200 if number > 30 else 0)


def write_video(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    pixels: str = "yuv420p",
    images: Iterable[np.ndarray] | None = None,
    time: Callable[[int], int] | None = None,
    rotation: int = 0,
    title: str | None = None,
) -> Path:
    """Writes 60 numbered frames, or `images`, at 30 frames a second, or at the times in ms that `time` gives."""
    images = list(map(picture, range(FRAMES))) if images is None else list(images)
    with av.open(path, "w") as container:
        if title is not None:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=30, options=options or {"x264-params": CLOSED})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], pixels
        stream.codec_context.thread_count = 1
        if codec in ("mpeg4", "mpeg2video"):
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        if time is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if time is None else time(number)
            frame.time_base = Fraction(1, 30) if time is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def repacked(
    source: Path,
    path: Path,
    *,
    without: int = 0,
    times: Callable[[av.Packet], tuple[int, int]] = lambda packet: (packet.pts, packet.dts),
    options: dict[str, str] | None = None,
) -> Path:
    """Copies a video's packets, without the first `without`, to another file; `times` gives their `pts` and `dts`."""
    with av.open(source) as whole, av.open(path, "w", options=options or {}) as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        for packet in islice(whole.demux(), without, None):
            if packet.dts is not None:
                packet.pts, packet.dts = times(packet)
                packet.stream = stream
                output.mux(packet)
    return path


def wrong_reads(path: Path) -> int:
    """How many of all 54 windows, read in random order, hold the wrong frames."""
    index = index_video(path)
    assert len(index) == FRAMES
    firsts = np.random.default_rng(0).permutation(FRAMES - 6)
    return sum(numbers(read_frames(index, int(i), 7)) != list(range(i, i + 7)) for i in firsts)


X264, X265 = "x264-params", "x265-params"
READ_WITH_DECORD = [
    pytest.param("a.mp4", "libx264", {X264: CLOSED}, {}, id="h264-mp4"),
    pytest.param("a.mkv", "libx264", {X264: CLOSED}, {}, id="h264-mkv"),
    pytest.param("a.mov", "libx264", {X264: IN_ORDER}, {}, id="h264-mov-no-b-frames"),
    pytest.param("a.mp4", "libx264", {X264: CLOSED}, {"time": irregular}, id="h264-variable-rate"),
    pytest.param("a.mp4", "libx265", {X265: f"{CLOSED}:open-gop=0"}, {}, id="hevc-mp4"),
]
DECORD_READS_WRONG = [
    pytest.param("a.mp4", "libx264", {X264: OPEN}, {}, id="h264-open-gop-mp4"),
    pytest.param("a.mkv", "libx264", {X264: OPEN}, {}, id="h264-open-gop-mkv"),
    pytest.param("a.mp4", "libx264", {X264: f"{CLOSED}:intra-refresh=1"}, {}, id="h264-intra-refresh"),
    pytest.param("a.mp4", "libx264", {X264: f"{IN_ORDER}:intra-refresh=1"}, {}, id="h264-intra-refresh-no-b-frames"),
    pytest.param("a.mp4", "libx265", {X265: OPEN}, {}, id="hevc-open-gop-mp4"),
    pytest.param("a.mkv", "libx265", {X265: OPEN}, {"time": irregular}, id="hevc-open-gop-variable-rate"),
    pytest.param("a.ts", "libx265", {X265: f"{CLOSED}:open-gop=0"}, {}, id="hevc-mpeg-ts"),
    pytest.param("a.mp4", "mpeg4", {}, {}, id="mpeg4-mp4"),
    pytest.param("a.avi", "mpeg4", {}, {}, id="mpeg4-avi"),
]
READ_WITH_PYAV = [
    *DECORD_READS_WRONG,
    pytest.param("a.webm", "libvpx-vp9", {"g": "24", "cpu-used": "8", "lag-in-frames": "16"}, {}, id="vp9-webm"),
    pytest.param("a.mkv", "ffv1", {}, {"pixels": "bgr0"}, id="ffv1-mkv"),
    pytest.param("a.mkv", "mpeg2video", {}, {}, id="mpeg2-mkv"),
    pytest.param("a.avi", "mjpeg", {}, {"pixels": "yuvj420p"}, id="mjpeg-avi"),
    pytest.param("a.mp4", "libx264", {X264: CLOSED}, {"pixels": "yuv420p10le"}, id="h264-10-bit"),
]


@needs_decord
@pytest.mark.parametrize(("name", "codec", "options", "more"), READ_WITH_DECORD)
def test_every_window_is_exact_where_decord_is_trusted(tmp_path, name, codec, options, more):
    path = write_video(tmp_path / name, codec, options, **more)
    assert index_video(path).decord
    assert wrong_reads(path) == 0


@pytest.mark.parametrize(("name", "codec", "options", "more"), READ_WITH_PYAV)
def test_every_window_is_exact_where_decord_is_not_trusted(tmp_path, name, codec, options, more):
    path = write_video(tmp_path / name, codec, options, **more)
    assert not index_video(path).decord
    assert wrong_reads(path) == 0


@needs_decord
@pytest.mark.parametrize(("name", "codec", "options", "more"), DECORD_READS_WRONG)
def test_decord_misreads_the_files_that_pyav_is_preferred_for(tmp_path, name, codec, options, more):
    """If a naive reader did not give wrong frames, the tests above would prove little."""
    path = write_video(tmp_path / name, codec, options, **more)
    reader = decoding.decord.VideoReader(str(path), num_threads=1)
    wrong = 0
    for first in np.random.default_rng(0).permutation(FRAMES - 6):
        frames = torch.from_numpy(reader.get_batch(range(first, first + 7)).asnumpy()).permute(0, 3, 1, 2)
        wrong += numbers(frames) != list(range(first, first + 7))
    assert wrong > 0


def true_frames(path: Path) -> np.ndarray:
    """The frames as decoded from the beginning of the file: `(t, H, W, 3)`."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("name", "codec", "refreshed"),
    [
        ("a.mp4", "libx264", "keyint=12:bframes=0"),
        ("a.ts", "libx264", "keyint=12:bframes=0"),
        ("a.mp4", "libx264", "keyint=9:bframes=1:b-adapt=2"),
        ("a.mkv", "libx264", "keyint=12:bframes=2:b-adapt=1"),
        ("a.mp4", "libx265", "keyint=12:bframes=2"),
        ("a.ts", "libx265", "keyint=12:bframes=0"),
    ],
)
def test_frames_are_not_read_from_where_an_intra_refresh_has_only_begun(tmp_path, name, codec, refreshed):
    """FFmpeg returns such frames as if they were whole, with the right times."""
    options = {f"{codec[3:]}-params": f"{refreshed}:intra-refresh=1:log-level=none"}
    index = index_video(write_video(tmp_path / name, codec, options))
    whole = true_frames(index.path)
    for first in range(FRAMES - 6):
        frames = read_frames(index, first, 7).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(frames, whole[first : first + 7])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(("codec", "params"), [("libx264", CLOSED), ("libx264", OPEN), ("libx265", OPEN)])
def test_ordinary_files_are_read_from_the_key_frames_nearby(tmp_path, name, codec, params):
    """Decoding from the beginning would take minutes for a video of an hour."""
    index = index_video(write_video(tmp_path / name, codec, {f"{codec[3:]}-params": params}))
    assert np.searchsorted(index.pts, index.keys).tolist() == [0, 12, 24, 36, 48]
    assert None not in decoding._start_times(index, int(index.pts[50]))[:3]


def test_a_recovery_point_is_found_among_other_messages():
    other = bytes([5, 255, 1]) + bytes(256)
    protected = re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", other)
    for point, at_once in ((0b11000100, True), (0b10000100, False), (0b01011000, False)):
        messages = bytes([6]) + protected + bytes([6, 1, point, 0x80])
        assert packets._recovers_at_once(messages) == at_once
    assert not packets._recovers_at_once(bytes([6]) + protected + b"\x80")


def test_avi_with_reordered_h264_is_exact_or_refused(tmp_path):
    """AVI stores no presentation times; the ones that FFmpeg guesses label frames wrongly."""
    index = index_video(write_video(tmp_path / "a.avi"))
    refused = 0
    for first in range(FRAMES - 6):
        try:
            assert numbers(read_frames(index, first, 7)) == list(range(first, first + 7))
        except DamagedClip:
            refused += 1
    assert refused > 0


def test_of_an_avi_too_few_frames_are_refused_though_their_times_are_guesses(tmp_path, monkeypatch):
    """A picture may be announced but not coded: what follows it would come too early."""
    index = index_video(write_video(tmp_path / "a.avi", "mpeg4", {}))
    assert len(list(decoding.stream_frames(index, 0, FRAMES))) == FRAMES
    decoded = decoding._iter_decoded
    monkeypatch.setattr(decoding, "_iter_decoded", lambda *args, **more: islice(decoded(*args, **more), FRAMES - 1))
    with pytest.raises(DamagedClip, match=f"frame {FRAMES - 1} cannot be decoded"):
        list(decoding.stream_frames(index, 2, FRAMES))


@needs_decord
def test_both_routes_give_the_same_pixels(tmp_path):
    index = index_video(write_video(tmp_path / "a.mp4"))
    for first in (0, 11, 30, 53):
        with_decord = decoding._read_with_decord(index, first, 7)
        assert with_decord is not None
        np.testing.assert_array_equal(with_decord, decoding._read_with_pyav(index, first, 7))


@pytest.mark.parametrize(("first", "count"), [(55, 7), (-1, 3), (60, 1)])
def test_frames_beyond_the_ends_are_refused(tmp_path, first, count):
    index = index_video(write_video(tmp_path / "a.mp4"))
    with pytest.raises(InvalidInput, match=rf"a\.mp4: has {len(index)} frames; expected {first + count} or more"):
        read_frames(index, first, count)


@pytest.mark.parametrize(("codec", "ending"), [("libx264", ".ts"), ("libx265", ".ts"), ("libvpx-vp9", ".webm")])
def test_frames_keep_their_size_where_it_changes_in_a_file(tmp_path, codec, ending):
    """As in recordings of calls and in joined files; decord would scale all frames to the first one's size."""
    options = {"libx264": {X264: CLOSED}, "libx265": {X265: f"{CLOSED}:open-gop=0"}}.get(codec, {"cpu-used": "8"})
    # Doubled, not halved: x265 writes beyond its memory if frames are 40 or 48 pixels wide.
    doubled = [picture(number).repeat(2, axis=0).repeat(2, axis=1) for number in range(FRAMES)]
    large = write_video(tmp_path / f"large{ending}", codec, options, images=doubled)
    small = write_video(tmp_path / f"small{ending}", codec, options)
    path = tmp_path / "both.mkv"
    with av.open(large) as first, av.open(small) as second, av.open(path, "w") as output:
        stream = output.add_stream_from_template(first.streams.video[0])
        for source, moved in ((first, 0), (second, 3)):
            for packet in source.demux():
                if packet.dts is not None:
                    shift = round(moved / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    output.mux(packet)
    index = index_video(path)
    assert len(index) == 2 * FRAMES
    assert read_frames(index, 0, 7).shape == (7, 3, 2 * HEIGHT, 2 * WIDTH)
    assert read_frames(index, FRAMES, 7).shape == (7, 3, HEIGHT, WIDTH)
    with pytest.raises(DamagedClip, match="the frame size changes within a clip"):
        read_frames(index, FRAMES - 3, 7)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "ffv1")])
def test_titles_of_old_files_that_are_no_utf_8_do_no_harm(tmp_path, name, codec):
    path = write_video(tmp_path / name, codec, {}, title="TITLE")
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"CAF\xe9S"))
    assert numbers(read_frames(index_video(path), 20, 7)) == list(range(20, 27))


@needs_decord
def test_a_name_that_is_no_utf_8_is_read(tmp_path):
    path = write_video(tmp_path / "a.mp4").rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    index = index_video(path)
    assert index.decord, "whose library takes UTF-8 alone"
    assert numbers(read_frames(index, 20, 7)) == list(range(20, 27))


def test_frames_of_vp8_that_nobody_sees_are_not_counted(tmp_path):
    """Encoders make such frames only for others to refer to; here a visible frame is turned into one."""
    path = write_video(tmp_path / "a.webm", "libvpx", {"cpu-used": "8"})
    with av.open(path) as container:
        thirtieth = bytes(next(islice(container.demux(), 30, None)))
    hidden = bytes([thirtieth[0] & ~0x10]) + thirtieth[1:]
    path.write_bytes(path.read_bytes().replace(thirtieth, hidden))
    index = index_video(path)
    assert len(index) == FRAMES - 1
    assert numbers(read_frames(index, 27, 7)) == [27, 28, 29, 31, 32, 33, 34]


def test_what_python_cannot_read_is_left_to_ffmpeg_which_tells_it_in_its_way(tmp_path, monkeypatch):
    """Training skips a file that FFmpeg cannot read; Python's own error would end it."""
    path = write_video(tmp_path / "a.mkv")

    def away(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", away)
    assert len(index_video(path)) == FRAMES


@pytest.mark.timeout(20)
def test_a_playlist_without_an_end_is_refused_and_not_waited_for(tmp_path):
    write_video(tmp_path / "a.ts")
    path = tmp_path / "a.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\na.ts\n")
    with pytest.raises(DamagedClip, match=r"a\.m3u8: a playlist without an end; add #EXT-X-ENDLIST as its last line"):
        index_video(path)
    with path.open("a") as file:
        file.write("#EXT-X-ENDLIST\n")
    assert len(index_video(path)) == FRAMES


def test_a_codec_that_ffmpeg_does_not_know_is_refused_in_words(tmp_path):
    path = write_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_UNKNOWN/ABCDE"))
    with pytest.raises(DamagedClip, match=r"a\.mkv: of a codec that FFmpeg does not know"):
        index_video(path)


@pytest.mark.parametrize("of_its_own", [False, True])
def test_pyav_steps_in_where_decord_fails(tmp_path, monkeypatch, of_its_own):
    decord = pytest.importorskip("decord", reason="it has wheels for x86-64 alone")

    def fail(*args: object, **kwargs: object) -> None:
        raise (decord.DECORDError if of_its_own else RuntimeError)("no")

    index = index_video(write_video(tmp_path / "a.mp4"))
    monkeypatch.setattr(decoding.decord, "VideoReader", fail)
    assert numbers(read_frames(index, 20, 7)) == list(range(20, 27))


def test_a_file_is_indexed_again_only_when_it_has_changed(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    index = index_video(path)
    assert index_video(path) is index
    os.utime(path, (1, 1))
    older = index_video(path)
    assert older is not index
    with path.open("ab") as file:
        file.write(bytes(8))
    os.utime(path, (1, 1))
    assert index_video(path) is not older, "another size at the same time"


def test_a_file_that_is_refused_is_not_searched_again_until_it_changes(tmp_path, monkeypatch):
    """A training run returns to it again and again; but an error of the disk may be gone the next time."""
    path = write_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[:-3000])
    scans, real = [], decoding.scan
    monkeypatch.setattr(decoding, "scan", lambda *arguments: scans.append(1) or real(*arguments))
    for _ in range(3):
        with pytest.raises(DamagedClip, match="cut off"):
            index_video(path)
    assert len(scans) == 1
    write_video(path)
    assert len(index_video(path)) == FRAMES

    def away(*arguments):
        raise av.error.OSError(5, "Input/output error")

    other = write_video(tmp_path / "b.mkv")
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "scan", away)
        patch.setattr(decoding, "can_be_read", lambda path: False)
        with pytest.raises(DamagedClip, match=r"cannot be read \(Input/output error\); check its permissions"):
            index_video(other)
    assert len(index_video(other)) == FRAMES


def test_a_matroska_that_ends_early_is_not_blamed_on_the_disk(tmp_path):
    """FFmpeg reports both as the same error."""
    path = write_video(tmp_path / "a.webm", "libvpx-vp9", {"cpu-used": "8"})
    content = path.read_bytes()
    for length in range(len(content) // 40, len(content) // 3, len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedClip, match=r"not a readable video|cut off|cut short"):
            index_video(path)


def test_an_avi_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path):
    """FFmpeg reports the duration of what is left as that of the file."""
    whole = write_video(tmp_path / "a.avi", "mpeg4", {})
    assert len(index_video(whole)) == FRAMES
    content = whole.read_bytes()
    for percent in range(30, 90, 5):
        cut = tmp_path / f"{percent}.avi"
        cut.write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(DamagedClip):
            index_video(cut)


def test_frames_at_one_time_are_refused(tmp_path):
    """Nothing could tell such frames apart."""
    source = write_video(tmp_path / "a.mkv", "ffv1")
    path = repacked(source, tmp_path / "twice.mkv", times=lambda packet: (packet.pts // 50 * 50,) * 2)
    with pytest.raises(DamagedClip, match="frames share timestamps"):
        index_video(path)


def test_frames_before_the_first_key_frame_are_not_counted(tmp_path):
    """As in a recording that joins a running stream: the frames they refer to are missing."""
    index = index_video(repacked(write_video(tmp_path / "a.mkv"), tmp_path / "joined.mkv", without=3))
    assert len(index) == FRAMES - 12
    assert numbers(read_frames(index, 0, 7)) == [*range(12, 19)]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts"])
def test_a_file_that_begins_with_an_intra_refresh_is_read_from_where_that_is_over(tmp_path, ending):
    """As in a recording that joins a running stream; until then the decoder returns nothing."""
    refreshed = {X264: f"{IN_ORDER}:intra-refresh=1"}
    source = write_video(tmp_path / f"a{ending}", "libx264", refreshed)
    index = index_video(repacked(source, tmp_path / f"cut{ending}", without=12))
    given = len(index)
    assert 40 < given < FRAMES - 12
    whole = torch.from_numpy(true_frames(source)[FRAMES - given :]).permute(0, 3, 1, 2)
    for first in (0, 1, given - 7):
        torch.testing.assert_close(read_frames(index, first, 7), whole[first : first + 7], rtol=0, atol=0)
    assert [frame.pts for frame in decoding.stream_frames(index, 0, given)] == index.pts.tolist()


def test_an_avi_that_begins_between_key_frames_is_streamed_from_the_first_of_them(tmp_path):
    """The decoder returns the frames before it all the same, though what they refer to is missing."""
    index = index_video(repacked(write_video(tmp_path / "a.avi", "mpeg4", {}), tmp_path / "cut.avi", without=3))
    frames = [frame.to_ndarray(format="rgb24") for frame in decoding.stream_frames(index, 0, len(index))]
    assert numbers(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)) == [*range(12, FRAMES)]


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg2video"), ("a.mp4", "mpeg4")])
def test_frames_that_the_decoder_says_are_damaged_are_refused(tmp_path, name, codec):
    """The decoder returns them all the same, patched up from their neighbours."""
    path = write_video(tmp_path / name, codec, {})
    with av.open(path) as container:
        twelfth = bytes(next(islice(container.demux(), 12, None)))
    content, half = path.read_bytes(), len(twelfth) // 2
    at = content.index(twelfth) + half
    path.write_bytes(content[:at] + bytes(byte ^ 0x5A for byte in content[at : at + 12]) + content[at + 12 :])
    index = index_video(path)
    with pytest.raises(DamagedClip, match="damaged near"):
        read_frames(index, 0, FRAMES)
    assert numbers(read_frames(index, 0, 7)) == [*range(7)]


def test_large_files_are_left_to_pyav(tmp_path, monkeypatch):
    """decord reads the whole file at every opening."""
    monkeypatch.setattr(decoding, "DECORD_MAX_BYTES", 1000)
    assert not index_video(write_video(tmp_path / "a.mp4")).decord


@needs_decord
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_comes_upright_as_decord_and_players_show_it(tmp_path, rotation):
    index = index_video(write_video(tmp_path / "a.mp4", rotation=rotation))
    reader = decoding.decord.VideoReader(str(index.path), num_threads=1)
    expected = torch.from_numpy(reader.get_batch(range(20, 27)).asnumpy()).permute(0, 3, 1, 2)
    frames = read_frames(index, 20, 7)
    assert frames.shape == expected.shape == ((7, 3, 64, 96) if rotation == 180 else (7, 3, 96, 64))
    # decord rotates before it converts the subsampled colours.
    assert (frames.int() - expected.int()).abs().max() <= 3
    assert numbers(torch.rot90(frames, -rotation // 90, (2, 3))) == list(range(20, 27))


def test_a_video_turned_by_half_angles_is_refused(tmp_path):
    with pytest.raises(DamagedClip, match="rotated by 45 degrees"):
        index_video(write_video(tmp_path / "a.mp4", rotation=45))


@pytest.mark.parametrize(
    ("name", "options", "kept"),
    [
        pytest.param("a.mp4", {}, 0.6, id="mp4-without-its-index"),
        pytest.param("a.mp4", {"movflags": "faststart"}, 0.6, id="mp4-with-its-index-first"),
        pytest.param("a.mkv", {}, 0.6, id="mkv"),
        pytest.param("a.mkv", {}, 0.8, id="mkv-shortly-before-its-end"),
        pytest.param("a.webm", {}, 0.6, id="webm"),
    ],
)
def test_a_file_cut_off_is_refused_and_not_read_as_a_shorter_one(tmp_path, name, options, kept):
    whole = tmp_path / name
    codec, coding = ("libvpx-vp9", {"g": "12", "cpu-used": "8"}) if name == "a.webm" else ("libx264", {X264: CLOSED})
    write_video(whole, codec, coding)
    if options:
        whole = repacked(whole, tmp_path / "moved.mp4", options=options)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{whole.suffix}"
    cut.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DamagedClip, match=r"cut off|not a readable video|is cut short"):
        index_video(cut)


@pytest.mark.parametrize("content", [b"", b"just some text\n" * 20, bytes(5000)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_video_is_named_and_nothing_is_printed(tmp_path, capfd, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DamagedClip, match=r"a\.mp4: not a readable video .*replace or remove it") as error:
        index_video(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_sound_without_pictures_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DamagedClip, match="no video stream"):
        index_video(path)


def test_sound_longer_than_the_pictures_is_no_damage(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=30, options={X264: CLOSED})
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        audio = container.add_stream("aac", rate=44100, layout="mono")
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4 * 44100), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
    assert wrong_reads(path) == 0


def test_damage_that_pyav_notices_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", options={X264: OPEN})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    index = index_video(path)
    refused = 0
    for first in range(0, FRAMES - 6, 6):
        try:
            assert numbers(read_frames(index, first, 7)) == list(range(first, first + 7))
        except DamagedClip:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("hidden", [7, 12, 20])
def test_frames_that_an_edit_list_hides_are_decoded_but_not_counted(tmp_path, hidden):
    """Cutting without re-encoding leaves such frames: the file begins with a key frame that is not shown."""

    def earlier(packet):
        shift = hidden * packet.duration
        return packet.pts - shift, packet.dts - shift

    index = index_video(repacked(write_video(tmp_path / "whole.mp4"), tmp_path / "trimmed.mp4", times=earlier))
    assert len(index) == FRAMES - hidden
    assert numbers(read_frames(index, 0, len(index))) == [*range(hidden, FRAMES)]
    assert numbers(read_frames(index, 5, 4)) == [*range(hidden + 5, hidden + 9)]


def test_a_container_that_cannot_be_set_back_to_its_beginning_is_read(tmp_path):
    path = write_video(tmp_path / "a.flv", "flv", {}, time=lambda number: 500 + 40 * number)
    assert len(index_video(path)) == FRAMES


def test_a_transport_stream_whose_clock_starts_anew_is_read_whole(tmp_path):
    """FFmpeg then gives negative times."""

    def later(packet):
        shift = round((2**33 / 90_000 - 1.3) / packet.time_base)
        return packet.pts + shift, packet.dts + shift

    source, copied = write_video(tmp_path / "a.mp4"), {"mpegts_copyts": "1"}
    index = index_video(repacked(source, tmp_path / "a.ts", times=later, options=copied))
    assert index.pts[0] < 0
    assert numbers(read_frames(index, 0, len(index))) == [*range(FRAMES)]


@needs_decord
def test_without_decord_all_is_read_with_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """decord has no wheels for ARM and macOS."""
    assert index_video(write_video(tmp_path / "a.mp4")).decord
    monkeypatch.setattr(decoding, "decord", None)
    index = index_video(write_video(tmp_path / "b.mp4"))
    assert not index.decord
    assert len(read_frames(index, 2, 3)) == 3


@pytest.mark.parametrize("step", ["index", "frames"])
def test_a_whole_video_is_not_called_damaged_where_the_system_gives_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Training would skip it and go on."""
    index = index_video(write_video(tmp_path / "clip.mkv", images=map(picture, range(4))))

    def refuse(*arguments: object, **options: object) -> None:
        raise av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(decoding, "open_input", refuse)
    decoding._index_or_problem.cache_clear()
    with pytest.raises(UserError, match=r"Resource temporarily unavailable: the system grants no more threads") as told:
        _ = index_video(index.path) if step == "index" else list(decoding._iter_decoded(index, None, None, threads=1))
    assert not isinstance(told.value, DamagedClip)
