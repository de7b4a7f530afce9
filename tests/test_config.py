"""Settings on their way to Hydra."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from stvsr.config import override

PARSER = OverridesParser.create()


@given(st.text(st.sampled_from("a '\\\",=[]{}$#ä"), min_size=1))
@example("it's")
@example("ends with a backslash\\")
@example("before a quote\\'")
def test_hydra_reads_of_a_setting_what_was_given(value: str) -> None:
    (read,) = PARSER.parse_overrides([override("output_dir", value)])
    assert str(read.value()) == value
