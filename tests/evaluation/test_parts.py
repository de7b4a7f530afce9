"""One table compares methods on given and on synthesised frames separately."""

from stvsr.evaluation.comparison import entries, published
from stvsr.evaluation.costs import Cost
from stvsr.evaluation.parts import parts_table
from stvsr.evaluation.protocols import Protocol
from stvsr.evaluation.results import Results
from stvsr.evaluation.rows import Row


def scored(method: str, *names: str) -> Results:
    scores = {"psnr_y_given": 26.0, "ssim_y_given": 0.8, "psnr_y_synthesised": 24.0, "ssim_y_synthesised": 0.7}
    every = {"psnr_y": 25.0, "ssim_y": 0.75, **scores}
    rows = [Row(*name.split("/"), 4, 28, 0, 0, "", every) for name in names]  # type: ignore[arg-type]
    return Results(method, Protocol("paper", True, False), Cost(), rows, {}, {})


def test_given_and_synthesised_frames_of_each_measured_method_have_a_row_each() -> None:
    table = parts_table(
        [*published(), *entries([scored("ours", "mine/slow", "mine/all"), scored("theirs", "mine/all")])]
    )
    assert list(table.columns) == ["method", "protocol", "frames", "mine slow", "mine all"]
    assert table.rows == [
        ["ours", "paper", "given", "26.00 / 0.8000", "26.00 / 0.8000"],
        ["ours", "paper", "synthesised", "24.00 / 0.7000", "24.00 / 0.7000"],
        ["theirs", "paper", "given", "-", "26.00 / 0.8000"],
        ["theirs", "paper", "synthesised", "-", "24.00 / 0.7000"],
    ]
