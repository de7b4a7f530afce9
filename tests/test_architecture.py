"""Data flows one way and imports follow it; see docs/design.md."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "stvsr"

# A room may import from the rooms before it, entry points from all.
ROOMS = [
    *(
        "errors",
        "terminal",
        "files",
        "unfinished",
        "config",
        "cgroups",
        "devices",
        "explanations",
        "configuration_errors",
    ),
    *("data", "ops", "models", "graphs", "checkpoint", "stage_weights", "evaluation", "tracking", "training", "video"),
]
ENTRY_POINTS = {"train", "evaluate", "upscale", "export", "report", "study", "dashboard", "demo", "pack", "cli"}


def imported(path: Path) -> set[str]:
    """The rooms of this package that a file imports from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}, line {node.lineno}: a relative import; give the whole name"
            # `from stvsr import ROOM` imports the room itself.
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("stvsr.")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


IN_ROOMS = [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in {*ENTRY_POINTS, "__init__"}]


@pytest.mark.parametrize("path", IN_ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_flow_of_data(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} has no place in the flow"
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    assert imported(path) <= allowed, f"{path.name} imports from {imported(path) - allowed}"


@pytest.mark.parametrize(
    "line",
    [
        "import torch, stvsr.training.module",
        "import stvsr.training as rooms",
        "from stvsr import training",
        "from stvsr.training import module",
        "def late():\n    from stvsr.training.module import SpaceTimeModule",
    ],
)
def test_an_import_is_seen_in_whatever_form(tmp_path: Path, line: str) -> None:
    (tmp_path / "file.py").write_text(f"from torch import nn\n{line}\n")
    assert imported(tmp_path / "file.py") == {"training"}


@pytest.mark.parametrize("line", ["from . import training", "from ..training import module"])
def test_a_relative_import_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "file.py").write_text(f"{line}\n")
    with pytest.raises(AssertionError, match="line 1: a relative import"):
        imported(tmp_path / "file.py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
