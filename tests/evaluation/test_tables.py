"""One table in four formats; no name can break any of them."""

import csv
from io import StringIO

from stvsr.evaluation.tables import Table, as_csv, decimals, latex, markdown, with_parts

TABLE = Table(["set", "PSNR Y"], [["a_b & 50 %", "31.20"], ["x|y", "9.00"]], "protocol paper: all", ["left out: 1"])


def test_text_aligns_figures_and_says_the_protocol() -> None:
    assert TABLE.as_text().splitlines() == [
        "set         PSNR Y",
        "a_b & 50 %   31.20",
        "x|y           9.00",
        "left out: 1",
        "(protocol paper: all)",
    ]


def test_markdown_keeps_its_columns_whatever_a_name_holds() -> None:
    lines = TABLE.as_markdown().splitlines()
    assert lines[1] == "| :-- | --: |"
    assert lines[2] == "| a_b &amp; 50 % | 31.20 |"
    assert lines[3] == r"| x\|y | 9.00 |"
    assert "*protocol paper: all*" in lines
    assert "left out: 1  " in lines


def test_markdown_shows_a_name_with_html_in_it_as_it_is() -> None:
    assert markdown("a < b & c") == "a &lt; b &amp; c"


def test_a_caption_of_sentences_ends_each_once() -> None:
    assert r"\caption{One. Two. Three.}" in Table(["a"], [], "One.", ["Two", "Three."]).as_latex()


def test_latex_has_no_bare_special_character() -> None:
    text = TABLE.as_latex()
    assert r"a\_b \& 50 \% & 31.20 \\" in text
    assert r"\caption{protocol paper: all. left out: 1.}" in text
    assert r"\begin{tabular}{lr}" in text
    assert latex("<|>") == r"\textless{}\textbar{}\textgreater{}"
    assert latex("[x]") == "{[}x]", "after the end of a row it would be an argument"
    assert latex("*x") == "{*}x", "so would this"
    assert latex("\\~^{}") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}"


def test_csv_is_read_back_as_it_was() -> None:
    rows = [["a,b", 1.25, None], ['say "x"', 2, "line\nbreak"]]
    read = list(csv.reader(StringIO(as_csv(["name", "value", "note"], rows))))
    assert read == [["name", "value", "note"], ["a,b", "1.25", ""], ['say "x"', "2", "line\nbreak"]]


def test_a_figure_that_is_not_there_is_a_dash() -> None:
    assert (decimals(1.005, 2), decimals(None, 2), decimals(3, 0)) == ("1.00", "-", "3")


def test_a_figure_stands_with_those_of_its_parts() -> None:
    assert (with_parts("3", ["1", "2"]), with_parts("3", [])) == ("3 (1 + 2)", "3")
