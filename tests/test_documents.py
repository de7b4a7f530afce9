"""Files that the documents name exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
"""A link to a file; links to sites have a colon."""

PATH = re.compile(r"`((?:src|tests|docs|benchmarks)/[\w./-]+\.\w+)`")
"""A file of the project, but for `conf/`, where readers may add their own."""

MODULE = re.compile(r"`([\w/]+\.py)`")
"""A module, by the end of its path."""

SOURCES = [str(path) for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = {document.parent / link for link in LINK.findall(text)} | {ROOT / path for path in PATH.findall(text)}
    assert [str(path) for path in named if not path.exists()] == []
    modules = MODULE.findall(text)
    assert [name for name in modules if not any(path.endswith(f"/{name}") for path in SOURCES)] == []
