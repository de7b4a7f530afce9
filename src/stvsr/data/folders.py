"""Searches folders of clips or videos and their subfolders; leaves out nothing that a user would count."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from stvsr.errors import InvalidInput


def searched(root: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and all below it: each with the names of its subfolders and of its files with given suffixes, sorted.

    Links are followed, as data sets are often assembled from them. Hidden files and folders belong to other programs.

    Args:
        root: where to begin.
        suffixes: of the files, in lower case.

    Raises:
        InvalidInput: a folder cannot be read, or a link is broken or leads to a folder that contains it.
    """

    def unreadable(error: OSError) -> NoReturn:
        raise InvalidInput(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")

    for where, folders, names in os.walk(root, followlinks=True, onerror=unreadable):
        path = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = sorted(name for name in names if not name.startswith("."))
        files = [name for name in visible if Path(name).suffix.lower() in suffixes]
        # os.walk lists a broken link to a folder among the files; a folder has no suffix, or one as in scene_1.5.
        for name in (*folders, *files, *(name for name in visible if not Path(name).suffix[1:2].isalpha())):
            check_link(path / name, root)
        yield path, folders, files


def is_searched(inner: Path, outer: Path) -> bool:
    """Whether a search of `outer` comes upon `inner`: it lies inside, and is not hidden there."""
    parts = inner.relative_to(outer).parts if inner.is_relative_to(outer) else ()
    return bool(parts) and not any(part.startswith(".") for part in parts)


def check_link(path: Path, root: Path) -> None:
    """Refuses a broken link, which would be a clip less, and one to a folder that contains it: clips without end.

    Args:
        path: what may be a link.
        root: the folder that is searched, in which `path` lies.

    Raises:
        InvalidInput: it is such a link.
    """
    if not path.is_symlink():
        return
    if not path.exists():
        raise InvalidInput(f"{path}: a broken link; remove or fix it")
    # The folders on the way here, which may have led through other links.
    passed = [folder.resolve() for folder in path.parents if folder.is_relative_to(root)]
    if path.resolve() in (*passed, *root.resolve().parents):
        raise InvalidInput(f"{path}: a link to a folder that contains it; remove it")
