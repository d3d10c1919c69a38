"""Pictures too large for one run: tiles that cover them once, and give what the whole picture gives."""

import dataclasses

import numpy as np
import pytest
from golden import golden_image
from networks import TINY, lively

from deeplab_tf.config import PredictConfig
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment, tiles, write_probabilities


def test_tiles_cover_every_pixel_once():
    random = np.random.default_rng(5)
    for _ in range(400):
        stride = int(random.choice([1, 8, 16, 32]))
        tile = int(random.integers(8, 40)) * stride + 1
        size = int(random.integers(1, 12 * tile))
        position, margin = 0, tile
        for start, first, last in tiles(size, tile, stride):
            assert first == position < last
            assert start % stride == 0
            assert 0 <= start <= first and last <= min(start + tile, size)
            margin = min([margin] + [first - start] * (first > 0) + [start + tile - last] * (last < size))
            position = last
        assert position == size
        # What is kept lies away from the cut edges of its tile.
        assert margin >= tile // 16 - 1


def test_tiles_of_one():
    assert list(tiles(5, 257)) == [(0, 0, 5)]
    assert list(tiles(257, 257, 16)) == [(0, 0, 257)]
    assert list(tiles(258, 257, 16)) == [(0, 0, 136), (16, 136, 258)]


class _Pointwise:
    """Stands in for a Predictor: the class of a pixel follows from its neighbourhood of 2 * reach + 1 pixels."""

    config = TINY
    fixed_size = None

    def __init__(self, reach: int):
        self.reach, self.largest = reach, 0

    def probabilities(self, images, inference):
        self.largest = max(self.largest, images.shape[1] * images.shape[2])
        around = np.pad(images[..., 0].astype(float), [(0, 0), (self.reach,) * 2, (self.reach,) * 2], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, (2 * self.reach + 1,) * 2, axis=(1, 2))
        means = windows[..., :: 2 * self.reach or 1, :: 2 * self.reach or 1].mean((-1, -2)) / 255
        shares = np.stack([np.abs(means - c / 5) for c in range(6)], axis=-1)
        return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)

    def labels(self, images, inference):
        return self.probabilities(images, inference).argmax(-1).astype(np.int32)


@pytest.mark.parametrize("size", [(300, 301), (600, 500), (20, 4000), (700, 257)])
@pytest.mark.parametrize("reach", [0, 15])
def test_tiled_equals_untiled(size, reach, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    options = PredictConfig(resize="none", max_pixels=66_049)
    stand_in = _Pointwise(reach)
    labels = segment(stand_in, image, options)
    write_probabilities(stand_in, image, options, str(tmp_path / "probabilities.npy"))
    assert stand_in.largest <= options.max_pixels
    whole = stand_in.probabilities(image[None], options.inference)[0]
    np.testing.assert_array_equal(labels, whole.argmax(-1))
    np.testing.assert_array_equal(np.load(tmp_path / "probabilities.npy"), whole)


def test_tiles_of_a_network():
    # Half the receptive field is 245 pixels; farther from a cut, a tile gives what the whole picture gives.
    model = lively(dataclasses.replace(TINY, add_image_level_feature=False))
    image = golden_image("photograph", 1100, 270)
    options = PredictConfig(resize="none", max_pixels=513 * 513)
    tiled = segment(predictor_of(model), image, options)
    whole = predict(model, image[None])[0]
    far = np.r_[0 : 513 - 245, 592 + 245 : 1100]
    assert np.mean(tiled[far] == whole[far]) > 0.9999
    assert np.mean(tiled == whole) > 0.95
    assert len(np.unique(whole)) >= 3
