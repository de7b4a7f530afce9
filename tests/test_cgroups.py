"""Containers and clusters limit memory; the limit is found in either version of control groups."""

from pathlib import Path

import pytest

from stvsr.cgroups import within_limits

NONE = str(2**63 - 4096)
"""How version 1 says that there is no limit."""


def group(folder: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip((*names, "memory.stat"), (limit, str(used), stat), strict=True):
        (folder / name).write_text(f"{content}\n")


def process(root: Path, groups: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)


@pytest.mark.parametrize(("path", "place"), [("/", ""), ("/job/step", "job/step"), ("/../elsewhere", "")])
def test_what_version_2_leaves_is_the_limit_less_what_cannot_be_had_back(tmp_path: Path, path: str, place: str) -> None:
    process(tmp_path, f"0::{path}\n")
    group(
        tmp_path / "sys/fs/cgroup" / place,
        ("memory.max", "memory.current"),
        "8000",
        5000,
        "anon 3000\ninactive_file 1500\nactive_file 500",
    )
    assert min(within_limits(tmp_path)) == 8000 - 5000 + 1500 + 500


def test_a_parents_limit_holds_too(tmp_path: Path) -> None:
    process(tmp_path, "0::/job/step\n")
    names = ("memory.max", "memory.current")
    group(tmp_path / "sys/fs/cgroup/job/step", names, "max", 100, "inactive_file 0")
    group(tmp_path / "sys/fs/cgroup/job", names, "1000", 400, "inactive_file 0")
    assert list(within_limits(tmp_path)) == [600]


def test_a_group_that_is_over_its_limit_has_nothing_left_and_not_less(tmp_path: Path) -> None:
    """Its limit may have been lowered while it ran."""
    process(tmp_path, "0::/\n")
    group(tmp_path / "sys/fs/cgroup", ("memory.max", "memory.current"), "1000", 1500, "inactive_file 100")
    assert list(within_limits(tmp_path)) == [0]


def test_version_1_is_read_where_its_memory_controller_is(tmp_path: Path) -> None:
    process(tmp_path, "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(
        tmp_path / "sys/fs/cgroup/memory/job",
        names,
        "900",
        300,
        "inactive_file 9\ntotal_inactive_file 20\ntotal_active_file 30",
    )
    group(tmp_path / "sys/fs/cgroup/memory", names, NONE, 300, "total_inactive_file 50")
    assert min(within_limits(tmp_path)) == 650


def test_where_there_are_no_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(within_limits(tmp_path)) == []
