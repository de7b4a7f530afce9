"""The scripts in benchmarks/: `make bench` loses no measurement, peaks are upper bounds, pipeline.py runs."""

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stvsr.errors import InvalidInput
from stvsr.models.zooming_slow_mo import ZoomingSlowMo


@pytest.fixture
def script_named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def bench(script_named: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with stubbed measurements, some of which fail."""
    script = script_named("bench")

    def compared(name: str, **_: object) -> list[object]:
        if "64x112" in name:
            raise RuntimeError("no engine")
        return [script.Result(name, 2.0, 1.0, 2.0, 1e-5)]

    def training_steps(name: str, **_: object) -> list[object]:
        raise subprocess.CalledProcessError(1, name)

    monkeypatch.setattr(script, "compared", compared)
    monkeypatch.setattr(script, "exactness", lambda name, **_: [script.Result(name, 10.0, 5.0, 2.0, None)])
    monkeypatch.setattr(script, "training_steps", training_steps)
    monkeypatch.setattr(script, "memory", lambda name, **_: [script.Result(name, 12.0, 1.0, 12.0, None)])
    monkeypatch.setattr(script, "loading", lambda name: [script.Result(name, 20.0, 200.0, 10.0, None)])
    monkeypatch.setattr(script, "roofline", lambda *_: None)
    monkeypatch.setattr(script, "has_bf16", lambda device: False)
    return script


def test_the_yardstick_makes_the_frames_that_our_network_makes(
    script_named: Callable[[str], ModuleType], small_network: Callable[..., ZoomingSlowMo]
) -> None:
    """Otherwise times of different work would be compared."""
    network = small_network("e").double()
    lr = torch.rand(1, 4, 3, 12, 16, dtype=torch.float64)
    with torch.no_grad():
        expected, found = network(lr), script_named("paper").PaperFormulation(network)(lr)
    assert (found - expected).abs().max() < 1e-10 * expected.std()


def test_a_row_that_fails_is_named_and_the_others_are_written(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = "inference 4x64x112, training step 24x4x32x32, training step 2x4x32x32"
    with pytest.raises(InvalidInput, match=f"{failed}: could not be measured"):
        bench.measure(torch.device("cpu"), 1, 1)
    written = json.loads(Path("outputs/bench/results.json").read_text())
    assert [(row["name"], row["ratio"]) for row in written] == [
        ("inference 4x144x180", 2.0),
        ("inference 4x64x112, off float64, 1e-6 std", 2.0),
        ("inference 4x144x180, off float64, 1e-6 std", 2.0),
        ("inference 4x1080x1920", 12.0),
        ("loading", 10.0),
    ]
    said = capsys.readouterr()
    assert "inference 4x64x112 failed: no engine" in said.err
    assert "inference 4x144x180" in said.out


def test_a_row_has_the_medians_of_both_and_of_the_ratios_of_pairs(script_named: Callable[[str], ModuleType]) -> None:
    row = script_named("bench").row("x, s", [(8.0, 2.0), (9.0, 3.0), (10.0, 1.0)], 0.5)
    assert (row.paper, row.ours, row.ratio, row.max_difference) == (9.0, 2.0, 4.0, 0.5)


def test_peaks_are_those_of_tf32_which_convolutions_use_on_a_gpu(
    script_named: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise convolutions would be faster than the bound."""
    bench, allowed = script_named("bench"), []
    products = torch.backends.cuda.matmul
    monkeypatch.setattr(bench, "timed", lambda work, device: allowed.append(products.fp32_precision) or 1.0)
    before = products.fp32_precision
    bench.peaks(torch.device("cpu"))
    assert set(allowed) == {"tf32"}
    assert products.fp32_precision == before


def test_the_pipelines_script_runs(
    script_named: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = script_named("pipeline")
    monkeypatch.setattr("sys.argv", ["pipeline.py", "--size", "64x48", "--frames", "9", "--runs", "1"])
    pipeline.main()
    assert "17 output frames" in capsys.readouterr().out
