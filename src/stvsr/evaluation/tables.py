"""One table, four forms: for a terminal, Markdown, LaTeX and CSV."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO

LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # After the `\\` of the row before, these would be read as its argument.
    "[": "{[}",
    "*": "{*}",
    "\\": r"\textbackslash{}",
}

NOTHING = "-"
"""Printed where there is no number."""


@dataclass(frozen=True)
class Table:
    """Cells as text, and what they mean.

    Attributes:
        columns: headings; the first column is aligned left, the others right.
        rows: cells.
        caption: how the figures were made; in every form but CSV.
        notes: what else a reader must know, a line each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    notes: Sequence[str] = field(default_factory=list)

    def as_text(self) -> str:
        """For a terminal."""
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        lines = []
        for row in (self.columns, *self.rows):
            first, *others = zip(row, widths, strict=True)
            lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip())
        return "\n".join([*lines, *self.notes, f"({self.caption})"])

    def as_markdown(self) -> str:
        """GitHub's Markdown."""
        head = [self.columns, [":--", *["--:"] * (len(self.columns) - 1)]]
        lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in (*head, *self.rows)]
        return "\n".join([*lines, "", *(f"{markdown(note)}  " for note in self.notes), f"*{self.caption}*", ""])

    def as_latex(self) -> str:
        """A `table` for a paper that loads `booktabs`."""
        body = [" & ".join(map(latex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex(' '.join(map(_sentence, [self.caption, *self.notes])))}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                " & ".join(map(latex, self.columns)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def markdown(text: str) -> str:
    """Text with what would end a column or be HTML escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|")


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values; None is an empty cell."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def decimals(value: object, digits: int) -> str:
    """A number with so many decimals, or a dash where there is none."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else NOTHING


def with_parts(whole: str, parts: Sequence[str]) -> str:
    """A figure, followed by those of its parts in brackets, if there are parts."""
    return f"{whole} ({' + '.join(parts)})" if parts else whole
