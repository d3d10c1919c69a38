"""Shapes drawn into labels: the pixels against another computation, order, crowds, borders, damaged outlines."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask

from deeplab_tf.data.annotations.drawn import Bitmap, Ellipse, Polygon, Shape, Unusable
from deeplab_tf.data.annotations.raster import Painting, clipped, ignore_borders, paint
from deeplab_tf.data.annotations.run_lengths import compressed_counts, runs
from deeplab_tf.errors import DeepLabError

SIZE = (48, 60)
LABELS = {"a": 1, "b": 2, "c": 3}


def polygon(*points, holes=()) -> Polygon:
    return Polygon(((np.array(points, float), tuple(np.array(hole, float) for hole in holes)),))


def box(left, top, right, bottom) -> Polygon:
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def drawn(*shapes, order="as_listed", border=0, size=SIZE) -> tuple[np.ndarray, list[str]]:
    """The label of (name, outline) pairs or shapes, and the kinds of what was told."""
    told = []
    made = [one if isinstance(one, Shape) else Shape(*one, where="here") for one in shapes]
    label = paint(made, size, Painting(LABELS, 0, 255, order, border), lambda kind, _: told.append(kind))
    return label, told


def centres(rings, size=SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Whether the centre of each pixel is inside by the even-odd rule, and its distance to the nearest edge."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, bool)
    distance = np.full(size, np.inf)
    for ring in rings:
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y1 != y2:
                inside ^= (y >= min(y1, y2)) & (y < max(y1, y2)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
            length = (x2 - x1) ** 2 + (y2 - y1) ** 2
            share = np.clip(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / max(length, 1e-12), 0, 1)
            distance = np.minimum(distance, np.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1)))
    return inside, distance


@pytest.mark.parametrize("seed", range(60))
def test_a_pixel_belongs_to_a_polygon_if_its_centre_does(seed):
    random = np.random.default_rng(seed)
    points = int(random.integers(3, 14))
    spread = 20 if seed % 3 else 60  # of every third, much lies outside of the picture
    ring = random.uniform(-spread / 4, spread, (points, 2)) + random.uniform(0, 12, 2)
    if seed % 2:  # around a centre, so that it does not cross itself
        middle = ring.mean(axis=0)
        ring = ring[np.argsort(np.arctan2(*(ring - middle).T[::-1]))]
    label, _ = drawn(("a", Polygon(((ring, ()),))))
    inside, distance = centres([ring])
    # pycocotools rounds vertices to fifths of a pixel, and steps along an edge in fifths.
    sure = distance > 0.35
    np.testing.assert_array_equal(label[sure] == 1, inside[sure])


@pytest.mark.parametrize(("left", "top"), [(0, 0), (10, 5), (59, 47), (55, 40)])
def test_boxes_of_whole_pixels_are_exact(left, top):
    right, bottom = min(left + 7, 60), min(top + 9, 48)
    expected = np.zeros(SIZE, np.uint8)
    expected[top:bottom, left:right] = 1
    np.testing.assert_array_equal(drawn(("a", box(left, top, right, bottom)))[0], expected)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_within_the_picture_are_those_of_coco(seed):
    ring = np.random.default_rng(seed).uniform(0, 48, (seed % 9 + 3, 2))
    ring = ring.round(seed % 3)  # coordinates of one or two decimals meet the rounding to fifths
    (encoded,) = mask.frPyObjects([ring.ravel().tolist()], *SIZE)
    label, _ = drawn(("a", Polygon(((ring, ()),))))
    expected = runs(compressed_counts(encoded["counts"].decode(), ""), 48 * 60, "").reshape(60, 48).T
    np.testing.assert_array_equal(label == 1, expected)


def test_parts_are_united_and_holes_are_cut():
    rings = [[(2, 2), (30, 2), (30, 30), (2, 30)], [(10, 10), (20, 10), (20, 20), (10, 20)]]
    label, told = drawn(("a", polygon(*rings[0], holes=[rings[1]])))
    expected = np.zeros(SIZE, np.uint8)
    expected[2:30, 2:30] = 1
    expected[10:20, 10:20] = 0
    np.testing.assert_array_equal(label, expected)
    parts = Polygon(tuple((np.array(ring, float), ()) for ring in ([(0, 0), (20, 0), (20, 20), (0, 20)], rings[1])))
    label, _ = drawn(("a", parts))
    expected[...] = 0
    expected[:20, :20] = 1
    np.testing.assert_array_equal(label, expected)
    assert told == []


def test_a_hole_on_a_bridge_is_a_hole_and_nothing_to_tell():
    ring = [(2, 2), (30, 2), (30, 30), (2, 30), (2, 2), (10, 10), (10, 20), (20, 20), (20, 10), (10, 10)]
    label, told = drawn(("a", polygon(*ring)))
    assert (int(label[15, 15]), int(label[5, 25]), int(label[25, 5])) == (0, 1, 1)
    assert abs(int(label.sum()) - (28 * 28 - 100)) <= 20
    assert told == []


def test_a_polygon_that_crosses_itself_is_told():
    label, told = drawn(("a", polygon((5, 5), (45, 40), (45, 5), (5, 40))))
    assert told == ["drawn by the even-odd rule: polygons that cross themselves"]
    assert label[22, 10] == 1
    assert label[8, 25] == 0
    ring = [(5, 5), (40, 5), (40, 40), (5, 40)] * 2  # everything enclosed twice
    assert drawn(("a", polygon(*ring)))[1][0].startswith("drawn by the even-odd rule")


@pytest.mark.parametrize("far", [1e3, 1e7])
def test_points_outside_are_clipped(far):
    label, told = drawn(("a", box(-far, -far, far, 10)), ("b", box(30, 20, far, far)))
    expected = np.zeros(SIZE, np.uint8)
    expected[:10] = 1
    expected[20:, 30:] = 2
    np.testing.assert_array_equal(label, expected)
    assert told == []


def test_clipping_keeps_what_is_inside():
    ring = np.array([(-10.0, 20), (30, -15), (70, 20), (30, 60)])
    inside, _ = centres([ring])
    again, _ = centres([clipped(ring, SIZE)])
    np.testing.assert_array_equal(inside, again)
    assert clipped(ring + 1000, SIZE).shape == (0, 2)


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        (polygon((1, 1), (20, 20)), "left out: polygons of fewer than 3 points"),
        (polygon((1, 1)), "left out: polygons of fewer than 3 points"),
        (Polygon(((np.zeros((0, 2)), ()),)), "left out: polygons of fewer than 3 points"),
        (polygon((1, 1), (20, 20), (40, 40)), "left out: without the centre of a pixel of the picture inside"),
        (polygon((5.1, 5.1), (5.3, 5.1), (5.3, 5.3)), "left out: without the centre of a pixel of the picture inside"),
        (box(100, 100, 120, 120), "left out: without the centre of a pixel of the picture inside"),
        (box(5, 5, 5, 20), "left out: without the centre of a pixel of the picture inside"),
        (Ellipse((10, 10), (0, 5)), "left out: without the centre of a pixel of the picture inside"),
        (Ellipse((-100, 10), (5, 5)), "left out: without the centre of a pixel of the picture inside"),
        (Bitmap(np.zeros((3, 3), bool)), "left out: without the centre of a pixel of the picture inside"),
        (Bitmap(np.ones((3, 3), bool), 60, 0), "left out: without the centre of a pixel of the picture inside"),
        (Unusable("lines, which have no area"), "left out: lines, which have no area"),
    ],
)
def test_what_has_no_area_is_told_and_left_out(outline, expected):
    label, told = drawn(("b", box(0, 0, 5, 5)), ("a", outline))
    assert told == [expected]
    assert set(np.unique(label)) == {0, 2}


def test_a_part_without_area_does_not_take_the_others_along():
    parts = Polygon(((np.array([(1.0, 1), (2, 2)]), ()), (np.array([(10.0, 10), (20, 10), (20, 20), (10, 20)]), ())))
    label, told = drawn(("a", parts))
    assert int(label.sum()) == 100
    assert told == ["left out: polygons of fewer than 3 points"]


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_ellipses_by_the_centres_of_pixels(angle):
    label, _ = drawn(("a", Ellipse((30.25, 22.5), (15.0, 6.5), angle)))
    y, x = np.mgrid[:48, :60] + 0.5
    turned = (x - 30.25 + 1j * (y - 22.5)) * np.exp(-1j * np.radians(angle))
    np.testing.assert_array_equal(label == 1, (turned.real / 15) ** 2 + (turned.imag / 6.5) ** 2 <= 1)


def test_bitmaps_are_cut_at_the_edges():
    pixels = np.random.default_rng(0).random((60, 70)) > 0.5
    np.testing.assert_array_equal(drawn(("a", Bitmap(pixels, -5, -3)))[0] == 1, pixels[3:51, 5:65])
    expected = np.zeros(SIZE, bool)
    expected[40:, 50:] = pixels[:8, :10]
    np.testing.assert_array_equal(drawn(("a", Bitmap(pixels, 50, 40)))[0] == 1, expected)


# ---- order


def test_as_listed_the_later_covers_the_earlier_and_the_higher_the_lower():
    small, large = ("a", box(10, 10, 15, 15)), ("b", box(5, 5, 30, 30))
    assert drawn(small, large)[0][12, 12] == 2
    assert drawn(large, small)[0][12, 12] == 1
    high = Shape("a", small[1], "here", height=1)
    assert drawn(high, large)[0][12, 12] == 1


def test_the_largest_is_drawn_first_by_the_pixels_it_has_in_the_picture():
    small, large = ("a", box(10, 10, 15, 15)), ("b", box(5, 5, 30, 30))
    for shapes in ((small, large), (large, small)):
        assert drawn(*shapes, order="largest_first")[0][12, 12] == 1
    reaching_out = ("c", box(13, 12, 14, 5000))
    assert drawn(reaching_out, large, order="largest_first")[0][13, 13] == 3
    twins = ("a", box(0, 0, 4, 4)), ("b", box(0, 0, 4, 4))
    assert drawn(*twins, order="largest_first")[0][0, 0] == 2


@pytest.mark.parametrize("order", ["as_listed", "largest_first"])
def test_a_crowd_is_ignored_where_nothing_else_is_drawn(order):
    crowd = Shape("a", box(0, 0, 20, 20), "here", crowd=True)
    for shapes in itertools.permutations([("b", box(5, 5, 40, 10)), crowd]):
        label, _ = drawn(*shapes, order=order)
        expected = np.zeros(SIZE, np.uint8)
        expected[:20, :20] = 255
        expected[5:10, 5:40] = 2
        np.testing.assert_array_equal(label, expected)


# ---- borders


@pytest.mark.parametrize("width", [1, 2, 5])
def test_borders_are_ignored_on_both_sides(width):
    label, _ = drawn(("a", box(20, 0, 60, 48)), border=width)
    expected = np.zeros(SIZE, np.uint8)
    expected[:, 20:] = 1
    expected[:, 20 - width : 20 + width] = 255
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("width", [1, 3])
def test_borders_by_looking_at_every_neighbour(width):
    label = np.random.default_rng(width).choice(np.array([0, 0, 0, 3, 255], np.uint8), (9, 11))
    label = np.kron(label, np.ones((4, 4), np.uint8))
    expected = label.copy()
    for y, x in np.ndindex(*label.shape):
        around = label[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        if len(set(around.ravel().tolist()) - {255}) > 1 and label[y, x] != 255:
            expected[y, x] = 255
    np.testing.assert_array_equal(ignore_borders(label, width, 255), expected)


# ---- run lengths


def test_run_lengths():
    np.testing.assert_array_equal(runs([0, 2, 3], 5, "here"), [True, True, False, False, False])
    for counts in ([1, 2], [6], [-1, 6], [2.0, 3], [True, 4], [], [10**400]):
        with pytest.raises(DeepLabError, match="here: run lengths that do not add up to 5 pixels"):
            runs(counts, 5, "here")


def test_compressed_run_lengths():
    random = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        pixels = np.asfortranarray(random.random((700, 90)) < share, np.uint8)
        pixels[:300] = 0  # long runs, and differences of both signs
        text = mask.encode(pixels)["counts"].decode()
        np.testing.assert_array_equal(runs(compressed_counts(text, ""), pixels.size, ""), pixels.ravel("F"))
    for text in ("", "zzzz", "0o", "\xff", "\u4e2d", "00 0", "`" * 8 + "0"):
        with pytest.raises(DeepLabError, match="here: .* run"):
            compressed_counts(text, "here")


def test_why_pillow_does_not_draw_the_polygons():
    # It fills the pixels of the lines as well: a box of 30 x 30 becomes one of 31 x 31.
    image = Image.new("L", (60, 48))
    ImageDraw.Draw(image).polygon([(10, 10), (40, 10), (40, 40), (10, 40)], fill=1)
    assert int(np.asarray(image).sum()) == 961
    assert int(drawn(("a", box(10, 10, 40, 40)))[0].sum()) == 900
