"""Settings as Hydra and shells read them, compared with others, and refused where they cannot be meant."""

import shlex
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from stvsr.config import check_int, check_paths, flattened, override, refuse_missing, refuse_unread, targets_in, typed
from stvsr.errors import InvalidInput

PARSER = OverridesParser.create()


@given(st.text(st.sampled_from("a '\\\",=[]{}$#ä"), min_size=1))
@example("it's")
@example("ends with a backslash\\")
@example("before a quote\\'")
def test_hydra_reads_of_a_setting_what_was_given(value: str) -> None:
    (read,) = PARSER.parse_overrides([override("output_dir", value)])
    assert str(read.value()) == value


@given(st.text(st.sampled_from("ab1./:-+_ '\\\",=[]{}$#~ä"), min_size=1))
@example("runs/lr=0.1, x/checkpoints/last.ckpt")
@example("1.")
@example("null")
def test_a_shell_and_hydra_read_of_a_setting_what_a_remedy_named(value: str) -> None:
    (word,) = shlex.split(typed("resume", value))
    (read,) = PARSER.parse_overrides([word])
    assert str(read.value()) == value


def test_a_remedy_with_a_plain_path_is_plain() -> None:
    assert typed("resume", "outputs/2026-11-30/run_1/last.ckpt") == "resume=outputs/2026-11-30/run_1/last.ckpt"


def test_settings_are_named_below_those_above_them_and_empty_groups_vanish() -> None:
    settings = {"seed": 0, "data": {"root": None, "source": {"clips": [1, 2]}, "empty": {}}}
    assert flattened(settings) == {"seed": 0, "data.root": None, "data.source.clips": [1, 2]}


def test_targets_are_found_wherever_a_class_is_named() -> None:
    settings = {
        "_target_": "lab.Net",
        "parts": [{"_target_": "lab.Part"}, 3],
        "size": 2,
        "own": {"a": {"_target_": "b"}},
    }
    assert targets_in(settings) == ["lab.Net", "lab.Part", "b"]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"checkpoint": 1}, True),
        ({"data": {"source": {"root": True}}}, True),
        ({"root": 2020}, True),
        ({"weights": {"edvr": 1.5}}, True),
        ({"data": {"pack": 1}}, True),
        ({"data": {"root": ["a", "b"]}}, True),
        ({"checkpoint": None, "data": {"root": "a"}}, False),
        # A user's own settings.
        ({"model": {"checkpoint": True, "output": 64}}, False),
        ({"logger": {"wandb": {"resume": True}}}, False),
    ],
)
def test_a_number_is_refused_where_a_path_is_meant_and_nowhere_else(settings: dict[str, object], refused: bool) -> None:
    with pytest.raises(InvalidInput, match="read as") if refused else nullcontext():
        check_paths(OmegaConf.create(settings))


@pytest.mark.parametrize("value", [0, 1.5, 1.0, "auto", None, True])
def test_only_a_whole_number_that_is_large_enough_is_taken(value: object) -> None:
    check_int("crop", 1, least=1)
    with pytest.raises(InvalidInput, match=f"crop={value}; expected a whole number, 1 or more"):
        check_int("crop", value, least=1)


def test_what_is_missing_is_named_and_numbers_may_be_keys() -> None:
    refuse_missing(OmegaConf.create({"rates": {100000: 0.5}}))
    with pytest.raises(InvalidInput, match=r"rates\.100000 is not given"):
        refuse_missing(OmegaConf.create({"rates": {100000: "???"}}))


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [("recipe/short.yaml", "mine", True), ("recipe/short.yaml", "ours", False), ("recipe/mine.yaml", "mine", False)],
)
def test_a_config_file_of_ones_own_that_would_not_be_read_is_refused(
    tmp_path: Path, name: str, content: str, refused: bool
) -> None:
    for folder, said in (("ours", "ours"), ("own", content)):
        file = tmp_path / folder / ("recipe/short.yaml" if folder == "ours" else name)
        file.parent.mkdir(parents=True)
        file.write_text(said)
    sources = [
        SimpleNamespace(provider=provider, path=str(tmp_path / folder))
        for provider, folder in (("main", "ours"), ("command-line", "own"))
    ]
    says = pytest.raises(InvalidInput, match=r"short\.yaml: .*ours/recipe/short\.yaml is read instead; rename yours")
    with says if refused else nullcontext():
        refuse_unread(sources, tmp_path / "ours")
