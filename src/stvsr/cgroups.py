"""The memory that a container or a cluster's job leaves to this process; `/proc/meminfo` tells that of the machine.

Linux calls such a limit one of a control group. A process is in a group of each hierarchy, whose parents limit it too.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")

# For each version: where it is mounted, the files with the limit and the usage, and the prefix of those counters in
# memory.stat that include the groups below.
VERSIONS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def within_limits(root: Path = ROOT) -> Iterator[int]:
    """What each limit leaves, in bytes; nothing where there are none.

    Args:
        root: of the file system.
    """
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else []:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in VERSIONS:
                place, *names = VERSIONS[controller]
                group = Path(path.lstrip("/"))
                # In a container the path may be that of outside; its own group then is the top.
                for parent in (group, *group.parents):
                    yield from _left(root / place / parent, *names)


def _left(group: Path, limit: str, used: str, prefix: str) -> Iterator[int]:
    # No such group, no limit ("max"), or not ours to read.
    with suppress(OSError, ValueError):
        most = int((group / limit).read_text())
        held = int((group / used).read_text())
        said = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # What was read from files is kept as long as nobody needs the memory.
        files = sum(int(said.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
        yield max(0, most - held + files)
