"""What has the output's name is replaced as a whole, or stays."""

from pathlib import Path

import pytest

from stvsr.errors import InvalidInput, UserError
from stvsr.video.delivery import Place, check_free, delivery


def test_only_a_folder_of_nothing_but_files_of_frames_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    check_free(folder, overwrite=False)
    (folder / "1.PNG").touch()
    check_free(folder, overwrite=True)
    with pytest.raises(InvalidInput, match="already exists"):
        check_free(folder, overwrite=False)
    (folder / "more.png").mkdir()
    with pytest.raises(InvalidInput, match=r"holds more\.png"):
        check_free(folder, overwrite=True)


def test_a_disk_that_is_full_already_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stvsr.unfinished.write_text", fail)
    with (
        pytest.raises(UserError, match="No space left on device"),
        delivery(tmp_path / "out.mkv", {}, overwrite=False, lasting=True),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_job_made_stays(tmp_path: Path) -> None:
    (tmp_path / ".out.mkv.part").mkdir()
    (tmp_path / ".out.mkv.part" / "letter.txt").write_text("precious")
    with (
        pytest.raises(InvalidInput, match="holds files that are not of an unfinished upscaling"),
        delivery(tmp_path / "out.mkv", {}, overwrite=False, lasting=True),
    ):
        pass
    assert (tmp_path / ".out.mkv.part" / "letter.txt").read_text() == "precious"


@pytest.mark.parametrize("old", ["file", "folder"])
def test_an_output_that_cannot_be_put_in_its_place_leaves_there_what_was(tmp_path: Path, old: str) -> None:
    place = Place(tmp_path / "out", tmp_path / ".out.part", overwrite=True)
    (tmp_path / ".out.part").mkdir()
    kept = place.output
    if old == "folder":
        place.output.mkdir()
        kept = place.output / "1.png"
    kept.write_text("old")
    with pytest.raises(FileNotFoundError):
        place.deliver(tmp_path / ".out.part" / "gone")
    assert kept.read_text() == "old"
