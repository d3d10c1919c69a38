"""Small pictures: what they show, where names stand in them, and that they wait on the disk."""

import io

import numpy as np
import PIL.Image
import pytest

from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report import thumbnails

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]


def decoded(picture) -> np.ndarray:
    return np.array(PIL.Image.open(io.BytesIO(picture.content)).convert("RGB")).astype(int)


def test_pictures_show_what_was_added():
    """Big ones are small then: each pixel is that in the middle of a block."""
    label, prediction = np.zeros((2, 200, 960), int)
    label[:, 480:], prediction[:, 240:] = 1, 1
    label[:50] = 255
    found = thumbnails.Thumbnails(PALETTE, 255)
    found.add(np.zeros((30, 40, 3), np.uint8), np.ones((30, 40), int), np.ones((30, 40), int))
    found.add(np.full((200, 960, 3), 100, np.uint8), label, prediction)
    photo, true, guess, difference = found.pictures(1)
    assert [picture.caption for picture in (photo, true, guess)] == ["photo", "label", "prediction"]
    assert {decoded(picture).shape for picture in found.pictures(1)} == {(100, 480, 3)}
    assert {decoded(picture).shape for picture in found.pictures(0)} == {(30, 40, 3)}
    assert np.abs(decoded(photo) - 100).max() < 3
    np.testing.assert_array_equal(decoded(true)[60, [10, 300]], [PALETTE[0], PALETTE[1]])
    np.testing.assert_array_equal(decoded(true)[5, 5], (224, 224, 192))
    np.testing.assert_array_equal(decoded(guess)[5, [10, 200]], [PALETTE[0], PALETTE[1]])
    shown = decoded(difference)
    assert np.ptp(shown[60, 60]) < 8 and np.ptp(shown[60, 400]) < 8, "grey where it is right"
    assert shown[60, 180, 0] > shown[60, 180, 2] + 80, "orange where it is wrong"
    stripes = shown[10, 150:250].mean(axis=-1)
    assert stripes.max() - stripes.min() > 40, "striped where it is not scored, wrong or not"


def test_frames_of_one_street_are_alike():
    """Three streets of three frames each, which differ by noise and a shift of a few pixels."""
    found, label = thumbnails.Thumbnails(PALETTE, 255), np.zeros((96, 128), int)
    for street in range(3):
        fields = np.random.default_rng(street).integers(0, 256, (6, 8, 3))
        for frame in range(3):
            photo = np.roll(np.kron(fields, np.ones((16, 16, 1))), frame, axis=1)
            photo = photo + np.random.default_rng(frame).integers(-9, 10, photo.shape)
            found.add(np.clip(photo, 0, 255).astype(np.uint8), label, label)
    same = [[found.alike(one, other) for other in range(9)] for one in range(9)]
    np.testing.assert_array_equal(same, np.kron(np.eye(3), np.ones((3, 3))).astype(bool))


def test_the_picture_of_a_class():
    label, prediction = np.zeros((2, 40, 60), int)
    label[:, :40], prediction[:, 20:] = 2, 2
    label[:10] = 255
    found = thumbnails.Thumbnails(PALETTE, 255)
    found.add(np.full((40, 60, 3), 100, np.uint8), label, prediction)
    shown = decoded(found.of_class(0, 2))
    assert shown.shape == (40, 60, 3)
    missed, right, (wrong, nothing) = shown[30, 10], shown[30, 30], (shown[15:40, 44:], shown[4, 50])
    assert missed[0] > missed[2] + 80 and right[2] > right[0] + 80
    assert np.ptp(nothing) < 30, "what is not scored is not found wrongly"
    redness = (wrong[..., 0] - wrong[..., 2]).ravel()
    assert (redness > 60).mean() > 0.3 and (redness < 40).mean() > 0.2, "striped"


def test_what_is_added_goes_to_the_disk(monkeypatch):
    found = thumbnails.Thumbnails(PALETTE, 255)

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(found, "_file", Full())
    with pytest.raises(DeepLabError, match="No space left.*TMPDIR"):
        found.add(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), int), np.zeros((9, 9), int))


def test_names_stand_inside_their_classes():
    labels = np.zeros((60, 100), np.uint8)
    labels[10:50, 60:95], labels[2:12, 5:20], labels[:, :2] = 3, 4, 255
    marks = thumbnails._marks(labels, 255)
    assert [index for index, _, _ in marks] == [0, 3, 4]
    assert all(labels[int(60 * y), int(100 * x)] == index for index, x, y in marks)
    labels[2:12, 5:20] = 0
    labels[30, 30] = 4  # too small for a name
    assert [index for index, _, _ in thumbnails._marks(labels, 255)] == [0, 3]
