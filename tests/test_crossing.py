"""Pictures that cross to the devices as bytes: equal to the floats, wherever they are made."""

import numpy as np
import pytest
import tensorflow as tf
from record_files import example_of, write_records

from deeplab_tf.config import DataConfig
from deeplab_tf.data.crossing import BytePictures, float_pictures
from deeplab_tf.data.examples import open_records
from deeplab_tf.data.pipeline import training_batches

SIZES = ((20, 40), (40, 20), (33, 29), (50, 60), (12, 13))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Returns records of pictures that the crop of 33 x 29 pads on either side, on both, or cuts."""
    random = np.random.default_rng(0)
    pictures = [
        example_of(str(size), random.integers(0, 256, (*size, 3), np.uint8), random.integers(0, 21, size, np.uint8))
        for size in SIZES
    ]
    return write_records(tmp_path_factory.mktemp("records") / "all", "train", pictures)


def batches(folder, variant: str, **options) -> list:
    """Returns batches as floats and as bytes, in pairs."""
    config = DataConfig(dataset_dir=folder, crop_size=(33, 29), batch_size=5, model_variant=variant, **options)
    source = open_records(config, "train")
    kinds = [training_batches(source, 1, steps=4, as_bytes=as_bytes) for as_bytes in (False, True)]
    return list(zip(*kinds, strict=True))


@pytest.mark.parametrize("variant", ["xception_65", "resnet_v1_101"])  # pad with one number, and with three
def test_bytes_become_the_same_floats(folder, variant):
    compiled = tf.function(float_pictures, autograph=False)
    seen = set()
    for floats, crossed in batches(folder, variant, min_scale_factor=1.0, max_scale_factor=1.0):
        pictures = crossed["image"]
        assert isinstance(pictures, BytePictures) and pictures.pixels.dtype == tf.uint8
        assert crossed["label"].dtype == tf.uint8
        for made in (float_pictures(pictures), compiled(pictures)):
            np.testing.assert_array_equal(made.numpy(), floats["image"].numpy())
        np.testing.assert_array_equal(crossed["label"].numpy().astype(np.int32), floats["label"].numpy())
        seen |= {tuple(row) for row in np.concatenate([pictures.extent, pictures.left[:, None] > 0], axis=1).tolist()}
    assert len(seen) == 6, "every way to pad, mirrored or not"


@pytest.mark.parametrize(
    "options", [{}, {"min_scale_factor": 1.0, "max_scale_factor": 1.0, "min_resize_value": 30, "resize_factor": 4}]
)
def test_pictures_that_are_resized_stay_floats(folder, options):
    for floats, crossed in batches(folder, "xception_65", **options):
        np.testing.assert_array_equal(crossed["image"].numpy(), floats["image"].numpy())
        np.testing.assert_array_equal(tf.cast(crossed["label"], tf.int32).numpy(), floats["label"].numpy())
