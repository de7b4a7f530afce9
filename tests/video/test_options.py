"""How command-line values are parsed; invalid commands are tested in `tests/test_upscale_errors.py`."""

from fractions import Fraction

import pytest

from stvsr.video.options import parser


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("24000/1001", Fraction(24000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("29.97002997", Fraction(30000, 1001)),
        ("12.3456789", Fraction(123456789, 10_000_000).limit_denominator(10_000)),
    ],
)
def test_a_rate_is_taken_as_it_is_meant_and_as_encoders_take_it(text: str, rate: Fraction) -> None:
    assert parser().parse_args(["frames", "out.mp4", "--rate", text]).rate == rate


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("0:01:30.5", Fraction(181, 2)), ("1:02:03", 3723)]
)
def test_times_are_seconds_minutes_and_hours(text: str, seconds: Fraction | int) -> None:
    assert parser().parse_args(["in.mp4", "out.mp4", "--start", text]).start == seconds


def test_bf16_need_not_be_asked_for() -> None:
    assert parser().parse_args(["in.mp4", "out.mp4"]).precision == "auto"
