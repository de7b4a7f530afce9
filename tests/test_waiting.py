"""Threads of `stvsr-upscale` neither take the encoder's cores while they wait, nor have to be woken all the time."""

import os
import subprocess
import sys

import pytest

# What torch finds when it is loaded, printed by whatever looks for it first.
WATCHED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
            raise SystemExit
sys.meta_path.insert(0, Watch())
import stvsr.upscale
"""


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, "passive 3000"),
        ({"GOMP_SPINCOUNT": "7"}, "passive 7"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
    ],
    ids=str,
)
def test_threads_wait_as_the_user_says_or_else_soon_sleep_when_torch_is_loaded(
    said: dict[str, str], found: str
) -> None:
    unsaid = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    told = subprocess.run(
        [sys.executable, "-c", WATCHED], env=unsaid | said, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == found
