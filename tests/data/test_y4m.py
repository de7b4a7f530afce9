import pytest

from stvsr.data.y4m import Y4M_START, CountedPipe, is_whole_y4m

HEADER, PIXELS = b"YUV4MPEG2 W2 H2 F25:1\n", bytes(range(10, 16))


@pytest.mark.parametrize("frame_header", [b"FRAME\n", b"FRAME Ixyz\n"], ids=["plain", "with parameters"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_only_what_ends_with_a_frame_is_whole(frame_header: bytes, frames: int) -> None:
    video = HEADER + (frame_header + PIXELS) * frames
    assert is_whole_y4m(video, len(video), [len(PIXELS)] * frames)
    for cut in range(1, len(frame_header) + len(PIXELS)):
        # FFmpeg finds the frames before the one that is cut off.
        assert not is_whole_y4m(video, len(video) - cut, [len(PIXELS)] * (frames - 1))


def test_of_what_comes_through_a_pipe_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.read", lambda _, most: bytes(most))
    pipe = CountedPipe()
    for _ in range(3):
        pipe.read(700)
    assert (len(pipe.start), pipe.total) == (Y4M_START, 2100)
    pipe.read(700)
    assert (len(pipe.start), pipe.total) == (Y4M_START, 2800)
