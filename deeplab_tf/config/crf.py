"""CrfConfig: the options of the fully connected CRF, for every command that can end with one."""

import dataclasses
import math

from deeplab_tf.config.fields import Options, option


@dataclasses.dataclass(frozen=True)
class CrfConfig(Options, group="crf"):
    """The arguments of `crf.densecrf`. The defaults are those of DeepLab v2's ResNet-101 on PASCAL VOC 2012."""

    crf: bool = option(False, "end with a fully connected CRF at the picture's own size, as DeepLab v1 and v2")
    crf_iterations: int = option(10, "steps of the CRF's mean field")
    crf_w1: float = option(4.0, "weight of the CRF's appearance kernel (position and colour)")
    crf_w2: float = option(3.0, "weight of the CRF's smoothness kernel (position alone)")
    crf_sigma_alpha: float = option(67.0, "reach of the appearance kernel in pixels")
    crf_sigma_beta: float = option(3.0, "reach of the appearance kernel in colour levels (0..255)")
    crf_sigma_gamma: float = option(1.0, "reach of the smoothness kernel in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in dataclasses.fields(CrfConfig):
            unused = not self.crf and getattr(self, field.name) != field.default
            self._require(field.name, not unused, "has no effect without crf; give that too")
        self._require_at_least(0, "crf_iterations")
        for name in ("crf_w1", "crf_w2"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "expected a number of at least 0")
        for name in ("crf_sigma_alpha", "crf_sigma_beta", "crf_sigma_gamma"):
            self._require(name, 0 < getattr(self, name) < math.inf, "expected a number above 0")

    @property
    def crf_parameters(self) -> dict[str, float] | None:
        """The keyword arguments of `crf.densecrf`; None without a CRF."""
        if not self.crf:
            return None
        names = [field.name for field in dataclasses.fields(CrfConfig) if field.name != "crf"]
        return {name.removeprefix("crf_"): getattr(self, name) for name in names}
