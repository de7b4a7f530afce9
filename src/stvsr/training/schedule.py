"""The learning rate: cosine, batch by batch (paper Sec. 3.4), with the restarts of the release; warm-up is ours."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stvsr.config import check_int
from stvsr.errors import InvalidInput


def cosine_restarts(optimizer: Optimizer, *, period: int, minimum: float, warmup: int) -> LambdaLR:
    """From the optimizer's rate down to `minimum` along a half cosine, restarted every `period` steps.

    The rate is a function of the step alone, so a resumed run continues on the same curve.

    Args:
        optimizer: its learning rate is the highest.
        period: steps from one restart to the next; 150,000 in the authors' settings.
        minimum: lowest learning rate; 1e-7 in the paper.
        warmup: over this many steps at the start the rate is also ramped up linearly; 0, the paper's way, for none.

    Raises:
        InvalidInput: a period or warm-up that is not a whole number or is too small, a rate that is not finite and
            above 0, or a lowest rate that is not between 0 and the highest.
    """
    check_int("scheduler.period", period, least=1)
    check_int("scheduler.warmup", warmup, least=0)
    highest = optimizer.param_groups[0]["lr"]
    if not 0 < highest < math.inf:
        raise InvalidInput(f"optimizer.lr={highest:g}; expected a finite number above 0, such as 4e-4")
    if not 0 <= minimum <= highest:
        raise InvalidInput(f"scheduler.minimum={minimum:g}; expected 0 to optimizer.lr={highest:g}")
    floor = minimum / highest  # of the configured rate, which holds in a resumed run too

    def factor(step: int) -> float:
        cosine = (1 + math.cos(math.pi * (step % period) / period)) / 2
        ramp = min(1.0, (step + 1) / (warmup + 1))
        rate: float = ramp * (floor + (1 - floor) * cosine)
        return rate

    return LambdaLR(optimizer, factor)
