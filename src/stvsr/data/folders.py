"""Folders of clips or videos, searched with their subfolders: nothing is left out that a user would count."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from stvsr.errors import InvalidInput


def searched(root: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """A folder and all below it: each with the folders in it, and with its files of some kinds; sorted.

    Links are followed, as data sets are often put together from them. What is hidden belongs to other programs.

    Args:
        root: where to begin.
        suffixes: endings of the files to give, in lower case.

    Raises:
        InvalidInput: a folder that cannot be read, a link that leads nowhere or to a folder around it.
    """

    def unreadable(error: OSError) -> NoReturn:
        raise InvalidInput(f"{error.filename}: cannot be read ({error.strerror}); make it readable")

    for where, folders, names in os.walk(root, followlinks=True, onerror=unreadable):
        path = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = sorted(name for name in names if not name.startswith("."))
        files = [name for name in visible if Path(name).suffix.lower() in suffixes]
        # A link to a folder that is gone is among the files; a clip may be called scene_1.5.
        for name in (*folders, *files, *(name for name in visible if not Path(name).suffix[1:2].isalpha())):
            check_link(path / name, root)
        yield path, folders, files


def is_searched(inner: Path, outer: Path) -> bool:
    """Whether a folder lies in another one, and is found where that is searched: not if it is hidden there."""
    parts = inner.relative_to(outer).parts if inner.is_relative_to(outer) else ()
    return bool(parts) and not any(part.startswith(".") for part in parts)


def check_link(path: Path, root: Path) -> None:
    """Refuses a link that leads nowhere, which would be a clip less, and one to a folder around it: clips without end.

    Args:
        path: what may be a link.
        root: the folder that is searched, in which it lies.

    Raises:
        InvalidInput: it is one.
    """
    if not path.is_symlink():
        return
    if not path.exists():
        raise InvalidInput(f"{path}: a broken link; remove or fix it")
    # By the way that led here, which may go through other links.
    passed = [folder.resolve() for folder in path.parents if folder.is_relative_to(root)]
    if path.resolve() in (*passed, *root.resolve().parents):
        raise InvalidInput(f"{path}: a link to a folder that it is in; remove it")
