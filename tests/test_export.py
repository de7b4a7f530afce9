import sys
from pathlib import Path

import pytest
import torch

from stvsr.checkpoint import load_network
from stvsr.export import main


def test_the_command_writes_what_load_network_takes_and_tells_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "network.safetensors"
    monkeypatch.setattr(sys, "argv", ["stvsr.export", "starter", str(output)])
    main()
    assert capsys.readouterr().out == f"{output}: {output.stat().st_size / 1e6:.1f} MB\n"
    exported, starter = load_network(output).state_dict(), load_network("starter").state_dict()
    assert exported.keys() == starter.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in starter.items())


def test_what_cannot_be_exported_ends_in_one_line_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stvsr.export", str(tmp_path / "missing.ckpt"), str(tmp_path / "a.safetensors")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "missing.ckpt" in line
    assert not [*tmp_path.iterdir()]
