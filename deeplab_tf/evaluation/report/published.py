"""The published scores that an evaluation is shown beside."""

import dataclasses
from typing import Any

from deeplab_tf.config import EvalConfig, ModelConfig
from deeplab_tf.zoo.papers.row import PublishedResult
from deeplab_tf.zoo.published import RESULTS

_NEAREST = 3  # published scores to show where none is of the same settings


def comparable(
    network: ModelConfig, config: EvalConfig, *, dataset: str, split: str, longest_side: int | None = None
) -> list[dict[str, Any]]:
    """Returns the published scores to compare an evaluation with.

    They are those of this network at the same scales, flips and size of the images. Where there is none, they are the
    nearest few of the same backbone on the same split.

    Args:
      network: of the evaluation.
      config: its scales, flips and CRF.
      dataset: the data set's name.
      split: the split's name.
      longest_side: the size that the images were resized to, if they were.

    Returns:
      Of each "name", "settings", "source", "miou" (0..1), and "same": whether the settings are those of the evaluation.
    """

    def bare(one: ModelConfig) -> ModelConfig:
        return dataclasses.replace(one, crop_size=None, image_pooling_crop_size=None)

    def same(row: PublishedResult) -> bool:
        settings = (config.eval_scales, config.add_flipped_images, config.crf, longest_side)
        return (row.scales, row.flip, row.crf, row.longest_side) == settings and bare(row.config) == bare(network)

    def differences(row: PublishedResult) -> int:
        values = [(getattr(row.config, f.name), getattr(network, f.name)) for f in dataclasses.fields(ModelConfig)]
        settings = ((row.scales, config.eval_scales), (row.longest_side, longest_side))
        return sum(a != b for a, b in (*values, *settings))

    here = [row for row in RESULTS.values() if (row.dataset, row.split, row.metric) == (dataset, split, "mIoU")]
    here = [row for row in here if row.config.model_variant == network.model_variant]
    rows = [row for row in here if same(row)] or sorted(here, key=differences)[:_NEAREST]
    return [
        {"name": r.name, "settings": r.settings, "source": r.source, "miou": r.score / 100, "same": same(r)}
        for r in rows
    ]
