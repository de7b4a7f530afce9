"""The report in a real browser: it opens without a server, its controls work, and it shows the right things."""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, open_dict
from PIL import Image

from conftest import moving_frames, write_frames
from stvsr.data.png import write_png
from stvsr.errors import InvalidInput
from stvsr.evaluate import evaluate
from stvsr.evaluation.report import Pictures, _shown_clip, chosen_crop, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs Debian's packages chromium and chromium-driver"
)

QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
# Containers have 64 MiB of /dev/shm, which a large page fills.
QUIET += " --disable-dev-shm-usage"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two methods on three clips, one with a name that must be escaped in HTML."""
    from hydra import compose, initialize_config_dir

    from stvsr.config import CONFIG_DIR

    folder = tmp_path_factory.mktemp("report")
    for seed, name in enumerate(["street", "<b>sky & sea</b>", "walk"]):
        write_frames(folder / "clips" / name.replace("/", "_"), moving_frames(13, (96, 128), seed=seed, speed=3 * seed))
    common = ["data=clips", f"data.root='{folder}/clips'", "logger=csv", "workers=0"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        first = [*common, "method=bicubic_blend", "save_frames=true", f"output_dir='{folder}/bicubic'"]
        evaluate(compose("evaluate", first))
        for path in (folder / "bicubic" / "frames").rglob("*.png"):
            darker = np.array(Image.open(path)) // 2
            write_png(path, torch.from_numpy(darker).permute(2, 0, 1))
        saved = [f"predictions='{folder}/bicubic/frames'", "name=dark", f"output_dir='{folder}/dark'"]
        evaluate(compose("evaluate", [*common, *saved]))
    write_report(folder, [folder / "bicubic", folder / "dark"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("chromium")
    for argument in [*QUIET.split(), "--window-size=1400,1000", f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


def go_to(browser: Any, page: Path) -> None:
    """Opens a page and waits until it has loaded: the driver may return while the previous page is still there."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    # Both pages are often the same file, so the previous one is marked.
    browser.execute_script("document.before = true")
    browser.get(page.as_uri())
    is_there = "return !document.before && document.URL === arguments[0] && document.readyState === 'complete'"
    # A script that runs during the change of pages raises an error.
    WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException]).until(
        lambda browser: browser.execute_script(is_there, page.as_uri()), f"{page} was not opened in a minute"
    )


def pixels(browser: Any, selector: str) -> np.ndarray:
    """An element as the screen shows it: `(H, W, 3)`."""
    element = browser.find_element("css selector", selector)
    return np.array(Image.open(BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


@needs_chromium
def test_report_opens_without_a_server_or_an_error(browser: Any, report: Path) -> None:
    go_to(browser, report)
    assert browser.title == "stvsr: bicubic_blend, dark"
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    broken = browser.execute_script("return [...document.images].filter((image) => !image.naturalWidth).length")
    assert broken == 0


@needs_chromium
def test_a_click_on_a_heading_sorts_by_number_and_back(browser: Any, report: Path) -> None:
    go_to(browser, report)
    column = 3
    head = browser.find_elements("css selector", "#clips th button")[column]

    def values() -> list[float]:
        rows = browser.find_elements("css selector", "#clips tbody tr")
        return [float(row.find_elements("css selector", "td")[column].text) for row in rows]

    head.click()
    assert values() == sorted(values(), reverse=True)
    assert len(set(values())) == 3
    head.click()
    assert values() == sorted(values())


@needs_chromium
def test_words_are_sorted_from_a_and_the_arrow_says_which_way(browser: Any, report: Path) -> None:
    go_to(browser, report)
    heads = browser.find_elements("css selector", "#clips th")

    def names() -> list[str]:
        return [cell.text for cell in browser.find_elements("css selector", "#clips td:first-child")]

    words, figures = heads[0], heads[3]
    words.find_element("css selector", "button").click()
    assert names() == sorted(names(), key=str.casefold)
    assert words.get_attribute("aria-sort") == "ascending"
    words.find_element("css selector", "button").click()
    assert names() == sorted(names(), key=str.casefold, reverse=True)
    assert words.get_attribute("aria-sort") == "descending"
    figures.find_element("css selector", "button").click()
    assert (words.get_attribute("aria-sort"), figures.get_attribute("aria-sort")) == (None, "descending")


@needs_chromium
def test_the_slider_moves_the_divide_between_two_pictures(browser: Any, report: Path) -> None:
    go_to(browser, report)
    # Bicubic on the left, the dark frames on the right.
    browser.execute_script(
        "for (const [id, value] of [['left', 1], ['right', 2]]) { const choice = document.getElementById(id);"
        " choice.value = value; choice.dispatchEvent(new Event('change')); }"
    )

    def dark_share(position: int) -> float:
        browser.execute_script(
            "const slider = document.getElementById('position'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'));",
            position,
        )
        # The mean is about 128 in the left picture and half of that in the right one; the handle is white.
        return float((pixels(browser, "#compare").mean(axis=(0, 2)) < 96).mean())

    assert dark_share(100) < 0.05
    assert dark_share(50) == pytest.approx(0.5, abs=0.06)
    assert dark_share(0) > 0.95
    assert browser.get_log("browser") == []


@needs_chromium
def test_charts_have_a_point_for_each_clip_and_method_and_tell_given_from_synthesised(
    browser: Any, report: Path
) -> None:
    go_to(browser, report)
    points = browser.find_elements("css selector", "#scatter circle")
    assert len(points) == 3 * 2
    assert "HR" not in browser.find_element("css selector", "#lines").text
    browser.execute_script("document.querySelectorAll('#scatter circle')[4].dispatchEvent(new Event('click'))")
    assert browser.execute_script("return document.getElementById('clip').value") == "2"
    dots = browser.find_elements("css selector", "#lines circle")
    assert len(dots) == 13 * 2
    hollow = [dot for dot in dots if dot.get_attribute("fill") == "#fff"]
    assert len(hollow) == 6 * 2
    titles = [dot.find_element("css selector", "title").get_attribute("textContent") for dot in hollow]
    assert all("synthesised" in title for title in titles)


@needs_chromium
def test_a_click_into_a_picture_moves_the_enlarged_square_of_every_panel(browser: Any, report: Path) -> None:
    go_to(browser, report)
    before = [pixels(browser, f".panels figure:nth-child({i}) canvas") for i in (1, 2, 4)]
    image = browser.find_elements("css selector", ".panels img")[1]
    from selenium.webdriver.common.action_chains import ActionChains

    for corner in (-0.49, 0.49):
        width, height = image.size["width"], image.size["height"]
        ActionChains(browser).move_to_element_with_offset(
            image, int(corner * width), int(corner * height)
        ).click().perform()
        after = [pixels(browser, f".panels figure:nth-child({i}) canvas") for i in (1, 2, 4)]
        changed = [np.abs(a - b).mean() > 1 for a, b in zip(after, before, strict=True)]
        assert len(set(changed)) == 1
        if all(changed):
            return
    raise AssertionError("no panel changed")


@needs_chromium
def test_pictures_are_in_true_colours(browser: Any, report: Path) -> None:
    """The panel of the truth shows the frame of the file: channels are not swapped, frames not off by one."""
    go_to(browser, report)
    caption = browser.find_element("css selector", "#pictures h3").text
    name, number = re.fullmatch(r"(.*), frame (\d+) \(given\)", caption).groups()  # type: ignore[union-attr]
    shown = pixels(browser, ".panels figure:nth-child(4) img")
    truth = Image.open(report.parent / name / f"{int(number):08d}.png").convert("RGB")
    expected = np.array(truth.resize(shown.shape[1::-1], Image.Resampling.NEAREST)).astype(int)
    box_free = np.abs(shown - expected).max(axis=2) < 30
    assert box_free.mean() > 0.9


def test_the_file_stands_alone_and_names_are_text(report: Path) -> None:
    text = report.read_text()
    assert "<b>sky" not in text
    assert "&lt;b&gt;sky &amp; sea&lt;" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))  # type: ignore[union-attr]
    assert data["methods"] == ["bicubic_blend", "dark"]
    assert len(data["clips"]) == 3
    assert all(psnr is not None for clip in data["clips"] for psnr in clip["psnr"])


def middle_rows(folder: Path) -> np.ndarray:
    """The middle rows of a folder's frames, in order: `(t, W, 3)`."""
    frames = [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    return np.stack([frame[len(frame) // 2] for frame in frames])


def test_space_time_slices_are_the_middle_rows_of_every_method_and_of_the_truth(report: Path) -> None:
    clips = re.findall(r'<h3>([^<]*)</h3>\s*<div class="slices">(.*?)</div>', report.read_text(), re.S)
    assert len(clips) == 3
    for name, figures in clips:
        found = {
            caption: np.array(Image.open(BytesIO(base64.b64decode(encoded))))
            for encoded, caption in re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"', figures)
        }
        assert list(found) == ["bicubic_blend", "dark", "ground truth"]
        clip = report.parent / unescape(name)
        dark = middle_rows(report.parent / "bicubic" / "frames" / clip.name)
        assert dark.shape == (13, 128, 3)
        assert np.array_equal(found["ground truth"], middle_rows(clip))
        assert np.array_equal(found["dark"], dark)
        assert np.array_equal(found["bicubic_blend"] // 2, dark)


def test_a_frame_is_as_high_in_every_slice(tmp_path: Path) -> None:
    """Protocols may count different numbers of frames; equal heights must mean equal times."""
    every = []
    for label, frames in (("paper", 41), ("released", 37)):
        folder = tmp_path / label
        folder.mkdir()
        for kind in ("slice-truth", "slice-prediction"):
            write_png(folder / f"{kind}-00000001.png", torch.zeros(3, frames, 8, dtype=torch.uint8))
        for shown in ("given", "synthesised"):
            for kind in ("input", "truth", "prediction"):
                write_png(folder / f"{shown}-{kind}-00000001.png", torch.zeros(3, 8, 8, dtype=torch.uint8))
        every.append(Pictures(label, folder, []))
    heights = [slice["height"] for slice in _shown_clip("clip", every)["slices"]]
    assert heights == [140, round(140 * 37 / 41), 140]


def test_a_clip_that_runs_have_in_different_splits_has_all_of_them(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    write_frames(tmp_path / "clips" / "a", moving_frames(7, (32, 48)))
    common = ["method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'", "logger=csv", "workers=0"]
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, (medium, fast) in zip(folders, [(100, 200), (0.001, 0.002), (100, 200)], strict=True):
        thresholds = [f"motion.medium={medium}", f"motion.fast={fast}"]
        evaluate(configure("evaluate", *common, *thresholds, f"output_dir='{folder}'"))
    write_report(tmp_path, folders)
    text = (tmp_path / "report.html").read_text()
    assert '"split":"slow / fast"' in text
    assert "<td>slow / fast</td>" in text


@needs_chromium
def test_each_of_many_methods_has_a_colour_of_its_own(browser: Any, report: Path, tmp_path: Path) -> None:
    write_report(tmp_path, 9 * [report.parent / "dark"])
    go_to(browser, tmp_path / "report.html")
    colours = browser.execute_script(
        "return [...document.querySelectorAll('#scatter .legend span')].map(e => e.style.getPropertyValue('--colour'))"
    )
    assert len(set(colours)) == 9
    dots = browser.execute_script(
        "return [...document.querySelectorAll('#scatter circle')].map(e => getComputedStyle(e).fill)"
    )
    assert len(set(dots)) == 9


def test_the_enlarged_square_lies_where_a_method_is_wrong(tmp_path: Path) -> None:
    truth = torch.zeros(3, 200, 300, dtype=torch.uint8)
    wrong = truth.clone()
    wrong[:, 120:150, 230:260] = 200
    write_png(tmp_path / "truth.png", truth)
    write_png(tmp_path / "wrong.png", wrong)
    left, top, side = chosen_crop(tmp_path / "truth.png", [tmp_path / "wrong.png"])
    assert side == 64
    assert left <= 230 <= 260 <= left + side
    assert top <= 120 <= 150 <= top + side


@pytest.fixture
def score(configure: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., Path]:
    """A function that scores bicubic + blending on one or more clip sets and returns the folder of results."""

    def run(name: str, *roots: Path) -> Path:
        folder = tmp_path / "results" / name
        data = ["data=clips", f"data.root='{roots[0]}'"]
        common = ["method=bicubic_blend", f"name={name}", "logger=csv", "workers=0"]
        config = configure("evaluate", *data, *common, f"output_dir='{folder}'")
        if len(roots) > 1:
            sets = [{"_target_": "stvsr.data.frame_folders.FrameFolders", "root": str(root)} for root in roots]
            with open_dict(config):
                config.data.test_source = {"_target_": "stvsr.data.clip_sets.ConcatClipSet", "sets": sets}
        evaluate(config)
        return folder

    return run


def panels(page: Path) -> dict[str, list[str]]:
    """The captions of the pictures of each frame, by its heading."""
    pictures = re.search(r'<section id="pictures">(.*?)</section>', page.read_text(), re.S)
    parts = re.split(r"<h3>(.*?)</h3>", pictures.group(1))[1:] if pictures else []
    return {
        heading: [caption.split(",")[0] for caption in re.findall(r"<figcaption>(.*?)</figcaption>", part)]
        for heading, part in zip(parts[::2], parts[1::2], strict=True)
    }


def test_runs_that_keep_a_clip_in_folders_of_other_names_are_shown_side_by_side(
    score: Callable[..., Path], tmp_path: Path
) -> None:
    """Pictures lie in folders named after their sets only if there are several sets."""
    for name in ("vid4", "more"):
        write_frames(tmp_path / name / "a", moving_frames(7, (32, 48)))
    several = score("several", tmp_path / "vid4", tmp_path / "more")
    one = score("one", tmp_path / "vid4")
    for runs in ([several, one], [one, several]):
        write_report(tmp_path, runs)
        shown = panels(tmp_path / "report.html")
        assert sorted(shown) == [
            *("more/a, frame 3 (given)", "more/a, frame 4 (synthesised)"),
            *("vid4/a, frame 3 (given)", "vid4/a, frame 4 (synthesised)"),
        ]
        labels = [run.name for run in runs]
        assert shown["vid4/a, frame 3 (given)"] == ["LR input", *labels, "ground truth"]
        assert shown["more/a, frame 4 (synthesised)"] == ["overlaid LR inputs", "several", "ground truth"]


def test_pictures_of_another_size_are_left_out_with_a_line_and_the_data_are_told_apart(
    score: Callable[..., Path], tmp_path: Path
) -> None:
    small, large = tmp_path / "small" / "vid4", tmp_path / "large" / "vid4"
    write_frames(small / "a", moving_frames(7, (32, 48)))
    write_frames(large / "a", moving_frames(7, (40, 64)))
    table = write_report(tmp_path, [score("ours", small), score("theirs", large)])
    shown = panels(tmp_path / "report.html")
    assert shown["vid4/a, frame 3 (given)"] == ["LR input", "ours", "ground truth"]
    text = (tmp_path / "report.html").read_text()
    assert "theirs: its pictures of vid4/a are not shown: 64x40, ours has 48x32" in text
    told = f"methods were scored on different versions of vid4: root: {small} (ours) or {large} (theirs); pixels: "
    assert any(note.startswith(told) for note in table.notes)


@pytest.mark.parametrize(("name", "old", "new"), [("clips", ",", ";"), ("frames", "\nvid4,a,6", "\nvid4,a\n")])
def test_tables_that_were_changed_are_refused(
    score: Callable[..., Path], tmp_path: Path, name: str, old: str, new: str
) -> None:
    """Rewritten by a spreadsheet, or truncated in copying."""
    write_frames(tmp_path / "vid4" / "a", moving_frames(7, (32, 48)))
    ours = score("ours", tmp_path / "vid4")
    table = ours / f"{name}.csv"
    before = table.read_text()
    table.write_text(before.replace(old, new))
    assert table.read_text() != before
    with pytest.raises(InvalidInput, match=r"results/ours: clips\.csv or frames\.csv was changed; evaluate again"):
        write_report(tmp_path, [ours])


@pytest.mark.parametrize("removed", ["*.png", "slice-*.png"])
def test_pictures_that_were_removed_are_not_missed(score: Callable[..., Path], tmp_path: Path, removed: str) -> None:
    write_frames(tmp_path / "vid4" / "a", moving_frames(7, (32, 48)))
    ours = score("ours", tmp_path / "vid4")
    for picture in ours.rglob(removed):
        picture.unlink()
    write_report(tmp_path, [ours])
    assert panels(tmp_path / "report.html") == {}


def test_a_frame_of_two_different_runs_is_labelled_by_what_tells_them_apart(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    write_frames(tmp_path / "clips" / "a", moving_frames(7, (32, 48)))
    common = ["method=bicubic_blend", "data=clips", f"data.root='{tmp_path}/clips'", "logger=csv", "workers=0"]
    folders = []
    for protocol, folder in (("paper", "one"), ("released", "two"), ("paper", "three")):
        folders.append(tmp_path / folder)
        evaluate(configure("evaluate", *common, f"protocol={protocol}", f"output_dir='{folders[-1]}'"))
    write_report(tmp_path, folders)
    text = (tmp_path / "report.html").read_text()
    methods = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))["methods"]  # type: ignore[union-attr]
    write_report(tmp_path / "one", [folders[0], folders[0]])
    assert "bicubic_blend #2" in (tmp_path / "one" / "report.html").read_text()
    assert methods == ["bicubic_blend, paper, one", "bicubic_blend, released", "bicubic_blend, paper, three"]
