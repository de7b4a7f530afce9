"""The comparison picture: panels show the right frames; the file appears whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stvsr.evaluation.figures import comparison_figure, save_figure
from stvsr.evaluation.shown import SHOWN
from stvsr.files import beside_then_rename
from stvsr.models.bicubic_blend import BicubicBlend


def test_panels_show_the_given_and_the_synthesised_frame_of_each_method() -> None:
    lr, target = torch.rand(4, 3, 8, 8), (torch.rand(7, 3, 32, 32) * 255).round() / 255
    figure = comparison_figure(lr=lr, predictions={"one": target * 0.5, "two": target}, target=target, title="t")
    top, bottom = figure.axes[:5], figure.axes[5:]

    def shown(axis: object) -> np.ndarray:
        return np.asarray(axis.get_images()[0].get_array())  # type: ignore[attr-defined]

    def pixels(frame: torch.Tensor) -> np.ndarray:
        return frame.permute(1, 2, 0).numpy()

    assert np.array_equal(shown(top[0]), pixels(lr[1]))
    assert np.allclose(shown(bottom[0]), pixels((lr[1] + lr[2]) / 2))
    for row, frame in ((top, 2), (bottom, 3)):
        assert row[1].get_title().startswith("bicubic + blending\n")
        assert np.array_equal(shown(row[1]), pixels(BicubicBlend()(lr[None])[0, frame].clamp(0, 1)))
        assert np.array_equal(shown(row[2]), pixels(target[frame] * 0.5))
        assert np.array_equal(shown(row[3]), pixels(target[frame]))
        assert np.array_equal(shown(row[4]), pixels(target[frame]))
        assert "inf dB" in row[3].get_title()
    # Same frames and names as in the report of an evaluation.
    assert [row[0].get_title() for row in (top, bottom)] == [
        f"frame {shown.position + 1} ({shown.kind})\n{shown.input_name}" for shown in SHOWN
    ]


def test_picture_is_a_png_with_nothing_beside_it(tmp_path: Path) -> None:
    target = torch.rand(7, 3, 32, 32)
    figure = comparison_figure(lr=torch.rand(4, 3, 8, 8), predictions={"one": target}, target=target, title="t")
    save_figure(figure, tmp_path / "folder" / "a.png")
    assert (tmp_path / "folder" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.png"]


def test_a_clip_whose_name_is_no_text_is_drawn(tmp_path: Path) -> None:
    """File names need not be UTF-8; an error while drawing would end the training run."""
    target = torch.rand(7, 3, 32, 32)
    figure = comparison_figure(lr=torch.rand(4, 3, 8, 8), predictions={}, target=target, title="clip \udcff")
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_a_file_that_could_not_be_finished_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with beside_then_rename(path) as beside:
            beside.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
