"""Which files a video consists of; how containers are opened is tested in `test_decoding.py`."""

from pathlib import Path

from stvsr.data.containers import files_of


def test_the_files_of_a_playlist_are_those_that_it_names_also_by_other_playlists(tmp_path: Path) -> None:
    """A stopped job must not resume with different files."""
    (tmp_path / "low").mkdir()
    top, low = tmp_path / "top.m3u8", tmp_path / "low" / "index.m3u8"
    top.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow/index.m3u8\n")
    low.write_text('#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:2,\n0.m4s\r\n\n#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n')
    assert files_of(top) == [top, low, *(tmp_path / "low" / name for name in ("init.mp4", "1.m4s", "0.m4s"))]


def test_a_playlist_that_names_itself_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.m3u8").write_text("#EXTM3U\na.m3u8\n")
    assert files_of(tmp_path / "a.m3u8") == [tmp_path / "a.m3u8"]


def test_a_playlist_that_a_power_cut_damaged_has_its_parts(tmp_path: Path) -> None:
    (tmp_path / "a.m3u8").write_bytes(b"#EXTM3U\n0.ts\n1.ts" + bytes(4) + b"\n" + bytes(3))
    assert files_of(tmp_path / "a.m3u8") == [tmp_path / name for name in ("a.m3u8", "1.ts", "0.ts")]


def test_any_other_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b.txt\n")
    assert files_of(tmp_path / "a.txt") == [tmp_path / "a.txt"]
    assert files_of(tmp_path / "missing") == [tmp_path / "missing"]
