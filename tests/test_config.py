"""Settings on their way to Hydra, and compared with others."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from stvsr.config import flattened, override

PARSER = OverridesParser.create()


@given(st.text(st.sampled_from("a '\\\",=[]{}$#ä"), min_size=1))
@example("it's")
@example("ends with a backslash\\")
@example("before a quote\\'")
def test_hydra_reads_of_a_setting_what_was_given(value: str) -> None:
    (read,) = PARSER.parse_overrides([override("output_dir", value)])
    assert str(read.value()) == value


def test_settings_are_named_below_those_above_them_and_empty_groups_vanish() -> None:
    settings = {"seed": 0, "data": {"root": None, "source": {"clips": [1, 2]}, "empty": {}}}
    assert flattened(settings) == {"seed": 0, "data.root": None, "data.source.clips": [1, 2]}
