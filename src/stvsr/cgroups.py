"""The memory that the limits of a container or cluster job leave; `/proc/meminfo` knows only the machine's.

Linux sets such limits on control groups. A process is in one group of each hierarchy, whose parents limit it too.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")

# By controller (none in version 2): mount point, files of limit and usage, and the prefix of those counters in
# memory.stat that include child groups.
VERSIONS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def within_limits(root: Path = ROOT) -> Iterator[int]:
    """Yields the bytes that each limit leaves; nothing if there is no limit.

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
                # In a container the path may be the host's; the container's own group is then the root.
                for parent in (group, *group.parents):
                    yield from _left(root / place / parent, *names)


def _left(group: Path, limit: str, used: str, prefix: str) -> Iterator[int]:
    # No such group, no limit ("max"), or no permission to read.
    with suppress(OSError, ValueError):
        limit_bytes = int((group / limit).read_text())
        used_bytes = int((group / used).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # The page cache counts as used, but is released when memory is needed.
        page_cache = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
        yield max(0, limit_bytes - used_bytes + page_cache)
