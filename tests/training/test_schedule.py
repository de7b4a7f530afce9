"""The learning rate follows the paper's curve, restarts, and warms up if configured."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from stvsr.errors import InvalidInput
from stvsr.training.schedule import cosine_restarts

BASE, MINIMUM = 4e-4, 1e-7


def rates(steps: int, **arguments: int) -> list[float]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = cosine_restarts(optimizer, minimum=MINIMUM, **arguments)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_without_warmup_it_is_torchs_cosine_with_restarts() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    reference = CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=MINIMUM)
    expected = []
    for _ in range(35):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(35, period=10, warmup=0) == pytest.approx(expected, rel=1e-12)


def test_warmup_rises_to_the_curve_and_then_is_gone() -> None:
    plain, warm = rates(40, period=20, warmup=0), rates(40, period=20, warmup=4)
    assert warm[:4] == pytest.approx([rate * (i + 1) / 5 for i, rate in enumerate(plain[:4])])
    assert warm[4:] == plain[4:]
    assert warm[20] == pytest.approx(BASE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"period": 0, "warmup": 0}, r"scheduler\.period=0; expected a whole number, 1 or more"),
        ({"period": float("nan"), "warmup": 0}, r"scheduler\.period=nan; expected a whole number"),
        ({"period": 5, "warmup": -1}, r"scheduler\.warmup=-1; expected a whole number, 0 or more"),
        ({"period": 5, "warmup": float("inf")}, r"scheduler\.warmup=inf; expected a whole number"),
    ],
    ids=str,
)
def test_periods_and_warmups_that_make_no_sense_are_refused(arguments: dict[str, int], says: str) -> None:
    """An endless warm-up would train for weeks at a rate of 0."""
    with pytest.raises(InvalidInput, match=says):
        rates(1, **arguments)


@pytest.mark.parametrize("rate", [0.0, float("inf"), float("nan")])
def test_a_rate_that_makes_no_sense_is_refused(rate: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    with pytest.raises(InvalidInput, match=rf"optimizer\.lr={rate:g}; expected a finite number above 0"):
        cosine_restarts(optimizer, period=5, minimum=0.0, warmup=0)
