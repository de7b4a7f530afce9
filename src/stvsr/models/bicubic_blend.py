"""The method without learning that every table starts from: frame blending and bicubic enlargement."""

from stvsr.models.frame_interpolation.blend import Blend
from stvsr.models.frame_upscaling.bicubic import Bicubic
from stvsr.models.two_stage import TwoStage


class BicubicBlend(TwoStage):
    """A missing frame is the mean of its two neighbours; every frame is enlarged with MATLAB's bicubic."""

    def __init__(self) -> None:
        super().__init__(interpolator=Blend(), upscaler=Bicubic())
