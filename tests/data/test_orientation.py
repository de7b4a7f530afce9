import pytest
import torch

from stvsr.data.orientation import Orientation, display_matrix

ONE = 1 << 16


def moved_pixel_by_pixel(frame: torch.Tensor, a: int, b: int, c: int, d: int) -> torch.Tensor:
    """Puts each pixel where a display matrix does, as FFmpeg's display.h defines it."""
    height, width = frame.shape
    places = {(b * x + d * y, a * x + c * y): frame[y, x] for y in range(height) for x in range(width)}
    top, left = (min(place[side] for place in places) for side in (0, 1))
    rows, columns = (max(place[side] for place in places) for side in (0, 1))
    shown = frame.new_empty(rows - top + 1, columns - left + 1)
    for (y, x), value in places.items():
        shown[y - top, x - left] = value
    return shown


@pytest.mark.parametrize(("a", "b"), [(1, 0), (0, 1), (-1, 0), (0, -1)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_become_upright_as_the_display_matrix_says(a: int, b: int, mirrored: bool) -> None:
    c, d = (b, -a) if mirrored else (-b, a)
    orientation = Orientation.of((a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 7, 0, 1 << 30))
    frame = torch.arange(6).view(2, 3)
    assert orientation.mirrored == mirrored
    assert torch.equal(orientation.upright(frame), moved_pixel_by_pixel(frame, a, b, c, d))
    assert orientation.swaps_sides == (a == 0)


def test_nothing_is_done_where_nothing_is_said() -> None:
    assert Orientation.of(None) == Orientation.of((0,) * 9) == Orientation()
    assert torch.equal(Orientation().upright(torch.arange(6).view(2, 3)), torch.arange(6).view(2, 3))


class Turned:
    """A frame with side data that PyAV has no name for, so that only its rotation can be read."""

    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    @property
    def side_data(self) -> object:
        raise ValueError("34 is not a valid Type")


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_matrix_of_an_angle_alone_is_whole_and_turns_as_far(turns: int) -> None:
    matrix = display_matrix(Turned(90 * turns))  # type: ignore[arg-type]
    assert Orientation.of(matrix) == Orientation(turns=turns)
    # By FFmpeg's display.h, every matrix that moves pixels only within their plane ends with this number.
    assert (matrix or (1 << 30,))[-1] == 1 << 30
