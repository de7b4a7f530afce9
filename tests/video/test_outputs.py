"""What of a video's pictures is reported as lost in each kind of output."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stvsr.video.clock import Clock, InputTimes
from stvsr.video.codecs import Encoding
from stvsr.video.colour import Colour
from stvsr.video.outputs import is_y4m, losses
from stvsr.video.picture import Picture

HELD = InputTimes(Fraction(10), np.arange(4), Fraction(1, 10), held=30, even=True)
VARYING = InputTimes(Fraction(10), np.array([0, 1, 2, 9]), Fraction(1, 10))

CLOCK = Clock(InputTimes(Fraction(25)), interpolated=True, slow_motion=False)


@pytest.mark.parametrize("colour", [Colour(primaries=9), Colour(transfer=16), Colour(transfer=18)])
def test_colours_that_an_output_cannot_tell_are_said(colour: Colour) -> None:
    """A player would take them for ordinary colours and show them pale."""
    picture = Picture(64, 48, colour)
    for output, kind in ((Path("-"), "Y4M does"), (Path("frames"), "PNG files do")):
        (said,) = losses(picture, picture, CLOCK, output, None)
        assert said.startswith(f"{kind} not record HDR or wide-gamut colours")
        assert f"-color_primaries {colour.primaries} -color_trc {colour.transfer}" in said
        assert not list(losses(replace(picture, colour=Colour()), picture, CLOCK, output, None))
    assert not list(losses(picture, picture, CLOCK, Path("out.mp4"), Encoding("h264")))


@pytest.mark.parametrize(
    ("times", "says"),
    [(HELD, "the last frame, which is held"), (VARYING, "early or late"), (VARYING.part(0, 3), "early or late")],
    ids=["held", "varying", "an even part of a varying one"],
)
def test_times_that_an_output_cannot_tell_are_said(times: InputTimes, says: str) -> None:
    picture, clock = Picture(64, 48, Colour()), Clock(times, interpolated=True, slow_motion=False)
    for output in (Path("-"), Path("frames")):
        (said,) = losses(picture, picture, clock, output, None)
        assert says in said
    assert not list(losses(picture, picture, clock, Path("out.mp4"), Encoding("h264")))


@pytest.mark.parametrize(("name", "raw"), [("-", True), ("a.y4m", True), ("A.Y4M", True), ("y4m", False), ("a", False)])
def test_an_output_is_raw_video_however_its_ending_is_written(name: str, raw: bool) -> None:
    assert is_y4m(Path(name)) is raw


@pytest.mark.parametrize("bits", [9, 10, 12])
def test_deep_samples_that_are_rounded_are_said(bits: int) -> None:
    picture = Picture(64, 48, Colour(), bits=bits)
    (said,) = losses(picture, picture, CLOCK, Path("out.mp4"), Encoding("h264"))
    assert said == f"the video has {bits} bits per sample; they are rounded to 8"
