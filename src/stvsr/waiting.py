"""How threads that compute wait for each other. Torch reads it when it is loaded, so it is settled before that."""

import os

SPINS = 3000
"""Turns of a waiting loop, some tens of microseconds: more than lies between two small layers."""


def sleep_soon() -> None:
    """Lets threads that wait spin for a moment only, then sleep; what the user has said of waiting counts instead.

    By default they spin for milliseconds, and take the cores from an encoder, and from others on the machine. Asleep at
    once, they must be woken for each of hundreds of small layers, some of which take no longer than that.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        # GNU's OpenMP, with which torch comes from the package index, lets this come before the policy.
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
