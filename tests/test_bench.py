"""`make bench` loses nothing it has measured."""

import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stvsr.errors import InvalidInput


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, whose rows are quick."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    script = importlib.import_module("bench")

    def compared(name: str, **_: object) -> list[object]:
        if "64x112" in name:
            raise RuntimeError("no engine")
        return [script.Result(name, 2.0, 1.0, 2.0, 1e-5)]

    def training_steps(name: str, **_: object) -> list[object]:
        raise subprocess.CalledProcessError(1, name)

    monkeypatch.setattr(script, "compared", compared)
    monkeypatch.setattr(script, "training_steps", training_steps)
    monkeypatch.setattr(script, "memory", lambda name, **_: [script.Result(name, 12.0, 1.0, 12.0, None)])
    monkeypatch.setattr(script, "loading", lambda name: [script.Result(name, 20.0, 200.0, 10.0, None)])
    monkeypatch.setattr(script, "roofline", lambda *_: None)
    monkeypatch.setattr(script, "has_bf16", lambda device: False)
    return script


def test_a_row_that_fails_is_named_and_the_others_are_written(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="inference 4x64x112, training step 24x4x32x32: failed"):
        bench.measure(torch.device("cpu"), 1, 1)
    written = json.loads(Path("outputs/bench/results.json").read_text())
    assert [(row["name"], row["ratio"]) for row in written] == [
        ("inference 4x144x180", 2.0),
        ("inference 4x1080x1920", 12.0),
        ("loading", 10.0),
    ]
    said = capsys.readouterr()
    assert "inference 4x64x112 failed: no engine" in said.err
    assert "inference 4x144x180" in said.out
