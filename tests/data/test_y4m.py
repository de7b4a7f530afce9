import pytest

from stvsr.data.y4m import is_whole_y4m

HEADER, PIXELS = b"YUV4MPEG2 W2 H2 F25:1\n", bytes(range(10, 16))


@pytest.mark.parametrize("frame_header", [b"FRAME\n", b"FRAME Ixyz\n"], ids=["plain", "with parameters"])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_only_what_ends_with_a_frame_is_whole(frame_header: bytes, frames: int) -> None:
    video = HEADER + (frame_header + PIXELS) * frames
    assert is_whole_y4m(video, len(video), [len(PIXELS)] * frames)
    for cut in range(1, len(frame_header) + len(PIXELS)):
        # FFmpeg finds the frames before the one that is cut off.
        assert not is_whole_y4m(video, len(video) - cut, [len(PIXELS)] * (frames - 1))
