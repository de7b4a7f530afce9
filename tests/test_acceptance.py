"""The checks that are kept beside the project pass: they use the names that others rely on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = ROOT.parent / "shared" / "acceptance"


@pytest.mark.parametrize("script", ["parameters.py", "bicubic-is-matlab.py", "metrics.py", "video-in-video-out.sh"])
def test_an_independent_check_holds(script: str) -> None:
    if not (CHECKS / script).is_file():
        pytest.skip(f"{script} is not beside this clone")
    if script == "video-in-video-out.sh" and not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("needs ffmpeg and ffprobe")
    command = [sys.executable if script.endswith(".py") else "bash", CHECKS / script]
    # The checks call our programs by name, and `make test` does not activate the environment.
    programs = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    result = subprocess.run(command, cwd=ROOT, env=programs, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
