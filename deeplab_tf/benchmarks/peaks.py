"""What graphics cards compute at most, by their names: the peak that a training step is set beside."""

import dataclasses
from typing import Literal

StepPrecision = Literal["float32", "tf32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True)
class Peak:
    """The most floating point operations a second of a card, in units of 10^12, without structured sparsity.

    Products of bfloat16 and float16 are added up in float32, as they are in training. None: the card's tensor cores do
    not have the precision.

    Attributes:
      bfloat16: by tensor cores.
      float16: by tensor cores.
      tf32: by tensor cores.
      float32: by the other cores.
    """

    bfloat16: float | None
    float16: float
    tf32: float | None
    float32: float

    def of(self, precision: StepPrecision) -> float | None:
        """Returns the peak at a precision."""
        figures = {"bfloat16": self.bfloat16, "float16": self.float16, "tf32": self.tf32, "float32": self.float32}
        return figures[precision]


# By the makers' data sheets and white papers, whose figures of tensor cores are halved where they are with sparsity.
_H100_SXM = Peak(989.5, 989.5, 494.5, 67.0)
_H100_NVL = Peak(835.5, 835.5, 417.5, 60.0)
_A100 = Peak(312.0, 312.0, 156.0, 19.5)
_V100_SXM = Peak(None, 125.0, None, 15.7)
_V100_PCIE = Peak(None, 112.0, None, 14.0)
# The names as the driver gives them. A card that is divided (MIG) has another, which is not in the list: its maker has
# no figure of a part.
PEAKS: dict[str, Peak] = {
    "NVIDIA H200": _H100_SXM,
    "NVIDIA H200 NVL": _H100_NVL,
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H100 NVL": _H100_NVL,
    "NVIDIA H100 PCIe": Peak(756.0, 756.0, 378.0, 51.0),
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA A30": Peak(165.0, 165.0, 82.0, 10.3),
    "NVIDIA A10": Peak(125.0, 125.0, 62.5, 31.2),
    "NVIDIA A40": Peak(149.7, 149.7, 74.8, 37.4),
    "NVIDIA L4": Peak(121.0, 121.0, 60.0, 30.3),
    "NVIDIA L40": Peak(181.0, 181.0, 90.5, 90.5),
    "NVIDIA L40S": Peak(362.0, 362.0, 183.0, 91.6),
    "Tesla T4": Peak(None, 65.0, None, 8.1),
    "Tesla V100-SXM2-16GB": _V100_SXM,
    "Tesla V100-SXM2-32GB": _V100_SXM,
    "Tesla V100-SXM3-32GB": _V100_SXM,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "Tesla V100S-PCIE-32GB": Peak(None, 130.0, None, 16.4),
    "NVIDIA RTX A6000": Peak(154.8, 154.8, 77.4, 38.7),
    "NVIDIA RTX 6000 Ada Generation": Peak(364.2, 364.2, 182.1, 91.1),
    "NVIDIA GeForce RTX 3090": Peak(71.0, 71.0, 35.6, 35.6),
    "NVIDIA GeForce RTX 4090": Peak(165.2, 165.2, 82.6, 82.6),
}


def share_of_peak(device: str | None, precision: StepPrecision, operations: float) -> tuple[float | None, str]:
    """Returns the share of a card's peak that a number of operations a second is, and why there is none, or "".

    Args:
      device: the name of the card; None: a CPU.
      precision: of the products.
      operations: floating point operations a second, of which a multiply-add is two.
    """
    if device is None:
        return None, "no figure for CPUs"
    if device not in PEAKS:
        return None, "unknown card"
    peak = PEAKS[device].of(precision)
    if peak is None:
        return None, f"no {precision} in its tensor cores"
    return operations / (peak * 1e12), ""
