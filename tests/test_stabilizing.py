"""A clip's probabilities that are carried along the motion: the formula's, to the bit, and few of them at a time."""

import time

import cv2
import numpy as np
import pytest
from clips import CLASSES, SIZE, by_colour, picture, write_clip

from deeplab_tf.config import PredictConfig
from deeplab_tf.inference import clips
from deeplab_tf.inference.clips import segment_clip
from deeplab_tf.inference.stabilizing import Flicker, MotionFinder, Stabilizer
from deeplab_tf.inference.tiles import segment_probabilities
from deeplab_tf.inference.video import open_clip

WEIGHT = 0.6


def drawn_probabilities(generator):
    """Returns the probabilities of a network that is unsure, float32 [h, w, classes]."""
    scores = generator.random((*SIZE, CLASSES), np.float32)
    return scores / scores.sum(-1, keepdims=True)


@pytest.fixture
def frames():
    generator = np.random.default_rng(3)
    grain = generator.integers(0, 30, (*SIZE, 1))
    return [(picture(number) + grain).clip(0, 255).astype(np.uint8) for number in range(5)]


def test_the_mixture_is_that_of_the_formula_to_the_bit(frames):
    generator, find, stabilize, before, seen = np.random.default_rng(1), MotionFinder(), Stabilizer(WEIGHT), None, []
    for pixels in frames:
        probabilities, motion = drawn_probabilities(generator), find(pixels)
        labels, flicker = stabilize(motion, probabilities)
        own, mixed, expected = probabilities.argmax(-1), probabilities, Flicker()
        if before is not None:
            weight = (WEIGHT * motion.trusted).astype(np.float32)[..., None]
            moved = cv2.remap(before[0], motion.places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            mixed = (1 - weight) * probabilities + weight * moved
            pairs = ((own, before[1]), (mixed.argmax(-1), before[2]))
            expected = Flicker(int(motion.still.sum()), *(int((a != b)[motion.still].sum()) for a, b in pairs))
        before = (mixed, own, mixed.argmax(-1))
        np.testing.assert_array_equal(labels, mixed.argmax(-1))
        np.testing.assert_array_equal(stabilize.state["probabilities"], mixed)
        np.testing.assert_array_equal(stabilize.state["own"], own)
        assert labels.dtype == np.int32 and flicker == expected
        seen.append(flicker.still)
    assert seen[0] == 0 and min(seen[1:]) > SIZE[0] * SIZE[1] / 3


def test_it_goes_on_from_a_state_with_the_same_bits(frames):
    drawn = [drawn_probabilities(np.random.default_rng(number)) for number in range(5)]
    find, whole = MotionFinder(), Stabilizer(WEIGHT)
    expected, states = [], []
    for pixels, probabilities in zip(frames, drawn, strict=True):
        expected.append(whole(find(pixels), probabilities))
        states.append(whole.state)
    find, again = MotionFinder(states[1]["grey"]), Stabilizer(WEIGHT, states[1])
    for number in range(2, 5):
        labels, flicker = again(find(frames[number]), drawn[number])
        np.testing.assert_array_equal(labels, expected[number][0])
        assert flicker == expected[number][1]
        for name, value in again.state.items():
            np.testing.assert_array_equal(value, states[number][name])


def test_what_moves_is_found_where_it_was_and_is_not_still():
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8), None, 2)
    pixels = np.ascontiguousarray(255 * ((texture - texture.min()) / np.ptp(texture)), np.uint8)
    moved = pixels.copy()
    moved[:48] = np.roll(pixels, 3, axis=1)[:48]
    find = MotionFinder()
    first, second = find(pixels), find(moved)
    assert not first.trusted.any() and not first.still.any()
    above, below = (slice(8, 40), slice(16, 144)), (slice(56, 88), slice(16, 144))
    columns = np.arange(160)[None, 16:144]
    assert np.abs(second.places[above][..., 0] - (columns - 3)).mean() < 0.2
    assert np.abs(second.places[below][..., 0] - columns).mean() < 0.2
    assert second.trusted[above].mean() > 0.9 and second.trusted[below].mean() > 0.9
    assert second.still[above].mean() < 0.1 and second.still[below].mean() > 0.9


@pytest.mark.parametrize("options", [{"resize": "none"}, {"longest_side": 33}, {"longest_side": 33, "crf": True}])
def test_a_clip_has_the_classes_of_its_frames_one_by_one(options, tmp_path):
    write_clip(tmp_path / "x.mp4", [40 * number for number in range(6)])
    choice = PredictConfig(save=("npz",), stabilize=WEIGHT, **options)
    segment_clip(by_colour(), str(tmp_path / "x.mp4"), (tmp_path, "x"), choice)
    predictor, find, stabilize = by_colour().predictor, MotionFinder(), Stabilizer(WEIGHT)
    with open_clip(str(tmp_path / "x.mp4")) as clip:
        pictures = [frame.pixels for frame in clip.frames()]
    expected = [stabilize(find(pixels), segment_probabilities(predictor, pixels, choice))[0] for pixels in pictures]
    with np.load(tmp_path / "x_masks.npz") as stored:
        np.testing.assert_array_equal(stored["labels"], expected)


def test_the_flow_is_not_counted_as_network_and_few_frames_wait(tmp_path, monkeypatch):
    write_clip(tmp_path / "x.mp4", [40 * number for number in range(12)])
    model, begun, done, waiting = by_colour(), [], [], []
    network = model.predictor.probabilities
    monkeypatch.setattr(model.predictor, "probabilities", lambda *given: begun.append(0) or network(*given))

    class SlowFinder(MotionFinder):
        def __call__(self, pixels):
            time.sleep(0.1)
            return super().__call__(pixels)

    class SlowStabilizer(Stabilizer):
        def __call__(self, motion, probabilities):
            time.sleep(0.1)
            waiting.append(len(begun) - len(done))
            done.append(0)
            return super().__call__(motion, probabilities)

    monkeypatch.setattr(clips, "MotionFinder", SlowFinder)
    monkeypatch.setattr(clips, "Stabilizer", SlowStabilizer)
    choice = PredictConfig(resize="none", save=("npz",), stabilize=WEIGHT)
    result = segment_clip(model, str(tmp_path / "x.mp4"), (tmp_path, "x"), choice)
    assert len(begun) == len(done) == result.frames == 12
    assert max(waiting) <= 2, "the network runs ahead of the stabiliser: its probabilities pile up"
    assert result.seconds < 12 * 0.1 / 2
