"""A config must name exactly one method to score."""

from itertools import product

import pytest
from omegaconf import OmegaConf

from stvsr.errors import InvalidInput
from stvsr.evaluation.method import check_one_method

CHOICES = ("checkpoint", "predictions", "model", "method")


@pytest.mark.parametrize("given", list(product((False, True), repeat=len(CHOICES))), ids=str)
def test_exactly_one_method_is_scored(given: tuple[bool, ...]) -> None:
    config = OmegaConf.create({name: "a" if named else None for name, named in zip(CHOICES, given, strict=True)})
    if sum(given) == 1:
        check_one_method(config)
        return
    with pytest.raises(InvalidInput, match="give exactly one of checkpoint=FILE"):
        check_one_method(config)
