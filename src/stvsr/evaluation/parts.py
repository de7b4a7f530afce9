"""Several methods in one table, with given and synthesised frames scored separately."""

from collections.abc import Sequence

from stvsr.evaluation.comparison import Entry, columns_of, pair
from stvsr.evaluation.scores import PART_NAMES, PARTS
from stvsr.evaluation.tables import Table


def parts_table(compared: Sequence[Entry]) -> Table:
    """PSNR / SSIM for each clip set and split, two rows for each method that was measured."""
    measured = [entry for entry in compared if entry.rows]
    columns = columns_of(measured)
    rows = []
    for entry in measured:
        of_columns = [entry.rows[column].scores if column in entry.rows else {} for column in columns]
        for part in PARTS[1:]:
            pairs = [pair((scores.get(f"psnr_y{part}"), scores.get(f"ssim_y{part}"))) for scores in of_columns]
            rows.append([entry.method, entry.protocol, PART_NAMES[part], *pairs])
    return Table(
        ["method", "protocol", "frames", *(column.replace("/", " ") for column in columns)],
        rows,
        "PSNR / SSIM on Y of given and of synthesised frames, otherwise as in the comparison",
    )
