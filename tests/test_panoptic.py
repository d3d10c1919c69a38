"""Panoptic quality and parsing covering, by the numbers that the release publishes for its examples, and COCO's files.

The release's pictures are not here. Of two of them the areas and the scores are published, and with these the pixels
that ground truth and prediction share follow: pictures of such areas have the published scores.
"""

import json
from typing import cast

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation import panoptic
from deeplab_tf.ops.panoptic import PanopticQuality, ParsingCovering, Segments
from deeplab_tf.tools import panoptic as command

SMALL = Segments(3, 0, 256, 65536)


def grid(*rows: str) -> np.ndarray:
    return np.array([[int(digit) for digit in row] for row in rows], np.uint16)


TWO = grid("111111", "111111", "112221", "122221", "111111", "111111")
NEAR = grid("111111", "111111", "122221", "122211", "111111", "111111")  # 28/30 and 6/8 of TWO
FAR = grid("111111", "111111", "111221", "111221", "111221", "111111")  # 27/32 and 3/10


def one_category(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(instances), instances


def scored(metric, *pairs):
    for truth, found in pairs:
        metric.compare_and_accumulate(truth, found)
    return metric


def sums(metric) -> dict[str, list[float]]:
    return {
        name: row[: metric.segments.num_categories].tolist()
        for name, row in zip(metric.names, metric.sums, strict=True)
    }


def test_matches_by_intersection_over_union():
    segments = Segments(1, 2, 16)
    perfect = scored(PanopticQuality(segments), (one_category(TWO), one_category(TWO)))
    assert sums(perfect) == {"iou": [2.0], "tp": [2], "fn": [0], "fp": [0]}
    assert perfect.result() == 1.0
    near = scored(PanopticQuality(segments), (one_category(TWO), one_category(NEAR)))
    assert near.result() == pytest.approx((28 / 30 + 6 / 8) / 2)
    far = scored(PanopticQuality(segments), (one_category(TWO), one_category(FAR)))
    assert sums(far) == {"iou": [27 / 32], "tp": [1], "fn": [1], "fp": [1]}
    assert far.result() == pytest.approx(27 / 32 / 2)
    # The example of merged accumulators: both twice.
    for metric in (near, far):
        metric.merge(metric)
    near.merge(far)
    assert near.result() == pytest.approx(0.63177083)
    near.reset()
    assert near.result() == 0.0


def test_half_is_no_match():
    truth = grid("1100", "1100")
    metric = scored(PanopticQuality(Segments(2, 3, 2)), ((truth, truth * 0), (grid("1000", "1000"), truth * 0)))
    assert sums(metric)["tp"] == [1, 0] and sums(metric)["fn"] == [0, 1] and sums(metric)["fp"] == [0, 1]


def test_categories_and_instances():
    categories = grid("111111", "111111", "122122", "122122", "111111", "111111")
    instances = grid("000000", "000000", "000011", "000011", "000000", "000000")
    mirrored = instances[:, ::-1].copy()
    mirrored[2:4, 0] = 0
    mirrored[2:4, 1:3] = 1
    none = np.zeros_like(instances)
    segments = Segments(3, 0, 10, 100)
    joined = scored(PanopticQuality(segments), ((categories, none), (categories, instances)))
    assert sums(joined) == {"iou": [0, 1, 0], "tp": [0, 1, 0], "fn": [0, 0, 1], "fp": [0, 0, 2]}
    assert joined.result() == 0.5
    renamed = scored(PanopticQuality(segments), ((categories, mirrored), (categories, instances)))
    assert sums(renamed)["iou"] == [0, 1, 2] and renamed.result() == 1.0
    wrong = scored(PanopticQuality(Segments(2, 2, 1)), ((categories - 1, none), (2 - categories, none)))
    assert sums(wrong) == {"iou": [0, 0], "tp": [0, 0], "fn": [1, 1], "fp": [1, 1]} and wrong.result() == 0.0


def areas(pixels: int, *segments: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns categories of ground truth and prediction: (category, area, predicted area, pixels in common) each."""
    truth, found = np.zeros(pixels, np.uint16), np.zeros(pixels, np.uint16)
    free = 0
    for category, area, predicted, shared in segments:
        truth[free : free + area] = category
        found[free + area - shared : free + area - shared + predicted] = category
        free += area + predicted - shared
    assert free <= pixels
    return truth.reshape(1, -1), found.reshape(1, -1)


# Of the release's cat, whose ground truth is void around it, and of two parts of its bird, which is labelled all over:
# (category, area, predicted area, pixels in common), and the published score.
EXAMPLES = {
    "cat": ((6, 34454, 26910, 26671), 0.7741046032),
    "tree": ((3, 1580, 1237, 1203), 0.7453531599),
    "sky": ((5, 33667, 33659, 33512), 0.9910687881),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_published_scores(name):
    segment, published = EXAMPLES[name]
    category, area = segment[:2]
    truth, found = areas(317 * 330 if name == "cat" else 159 * 240, *[segment])
    if name != "cat":
        truth, found = np.where(truth, truth, 1), np.where(found, found, 1)
    segments, none = Segments(7, 0, 256, 65536), np.zeros_like(truth)
    quality = scored(PanopticQuality(segments), ((truth, none), (found, none)))
    assert quality.result_per_category()[category] == pytest.approx(published, abs=1e-10)
    for normalized in (True, False):
        covering = ParsingCovering(segments, normalize_by_image_size=normalized)
        scored(covering, ((truth, none), (found, none)))
        assert covering.result_per_category()[category] == pytest.approx(published, abs=1e-10)
        assert sums(covering)["area"][category] == pytest.approx(area / truth.size if normalized else area)


def test_ignored_pixels():
    truth, none = grid("0011", "0011"), np.zeros((2, 4), np.uint16)
    # Category 2 lies on void: no false positive; a third of it on category 1: neither. All of it there: it is one.
    on_void, mostly, beside = grid("2211", "2211"), grid("0222", "0011"), grid("0022", "0011")
    for found, wrong in ((on_void, 0), (mostly, 1), (beside, 1)):
        assert sums(scored(PanopticQuality(SMALL), ((truth, none), (found, none))))["fp"][2] == wrong
    half = grid("0222", "0211")  # two of four pixels on void are no majority
    assert sums(scored(PanopticQuality(SMALL), ((truth, none), (half, none))))["fp"][2] == 1
    crowd = none.copy()
    crowd[:, :2] = 1  # an instance of the ignored category is a crowd, and hides as void does
    assert sums(scored(PanopticQuality(SMALL), ((truth, crowd), (on_void, none))))["fp"][2] == 0
    assert scored(ParsingCovering(SMALL), ((none, none), (on_void, none))).result() == 0.0


@pytest.mark.parametrize(
    ("segments", "maps", "message"),
    [
        (SMALL, (TWO, TWO[:3]), r"categories \(6, 6\) and instances \(3, 6\)"),
        (SMALL, (TWO * 1.5, TWO), "float64 for the category"),
        (SMALL, (TWO * 3, TWO), r"category 6; expected 0 to 2 \(num_categories\)"),
        (Segments(1, 2, 16), (TWO, TWO), "category 1; expected 0 to 0"),
        (SMALL, (TWO, TWO.astype(np.int32) * 200), r"instance 400; expected 0 to 255 \(max_instances"),
        (SMALL, (TWO.astype(np.int32) - 2, TWO), "category -1"),
        (Segments(3, 0, 256, 300), (TWO, TWO), "segment 514 and offset=300"),
    ],
)
def test_maps_that_are_none(segments, maps, message):
    metric = PanopticQuality(segments)
    with pytest.raises(DeepLabError, match=message):
        metric.compare_and_accumulate(maps, maps)
    assert not metric.sums.any()


def test_metrics_that_do_not_fit():
    with pytest.raises(DeepLabError, match="6 x 6 and 3 x 6 pixels"):
        PanopticQuality(SMALL).compare_and_accumulate((TWO, TWO), (TWO[:3], TWO[:3]))
    for other in (PanopticQuality(Segments(4, 0, 256)), cast(PanopticQuality, ParsingCovering(SMALL))):
        with pytest.raises(DeepLabError, match="merge"):
            PanopticQuality(SMALL).merge(other)
    with pytest.raises(DeepLabError, match="merge"):
        ParsingCovering(SMALL).merge(ParsingCovering(SMALL, normalize_by_image_size=False))


# ---- COCO's files

CATEGORIES = {1: ("person", True), 2: ("tree", False), 3: ("kite", True)}


def drawn(seed: int) -> panoptic.ImageSegments:
    random = np.random.default_rng(seed)
    category = np.kron(random.integers(0, 3, (4, 5)), np.ones((6, 7), int))
    instance = np.where(category == 1, np.kron(random.integers(0, 2, (4, 5)), np.ones((6, 7), int)), 0)
    return panoptic.ImageSegments(f"{seed}.jpg", category, instance)


def shifted(image: panoptic.ImageSegments) -> panoptic.ImageSegments:
    return panoptic.ImageSegments(image.name, np.roll(image.category, 2, 1), np.roll(image.instance, 2, 1))


@pytest.fixture
def two_sets(tmp_path):
    images = [drawn(seed) for seed in range(40)]
    assert panoptic.write_panoptic(tmp_path / "truth.json", images, CATEGORIES, void=0) == 40
    panoptic.write_panoptic(tmp_path / "found.json", map(shifted, images), CATEGORIES, void=0)
    return tmp_path


def change(file, edit) -> None:
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def test_what_is_written_is_read(two_sets):
    truth = panoptic.read_panoptic(two_sets / "truth.json")
    assert truth.categories == CATEGORIES and truth.is_thing == [False, True, False, True]
    segments = Segments(4, 0, 256)
    for metric in (PanopticQuality(segments), ParsingCovering(segments)):
        expected = type(metric)(segments)
        for seed in range(40):
            image = drawn(seed)
            moved = shifted(image)
            expected.compare_and_accumulate((image.category, image.instance), (moved.category, moved.instance))
        found = panoptic.read_panoptic(two_sets / "found.json", two_sets / "found")
        assert panoptic.score_panoptic(metric, truth, found) == ()
        np.testing.assert_allclose(metric.sums[:, 1:], expected.sums[:, 1:], rtol=1e-12)
        assert 0 < metric.result() < 1


@pytest.mark.heavy
def test_processes_share_the_images(two_sets, capsys):
    flags = [f"--gt_json_file={two_sets}/truth.json", f"--pred_json_file={two_sets}/found.json", "--num_categories=4"]
    printed = []
    for more in ([], ["--num_workers=2"]):
        with pytest.raises(SystemExit, match="0"):
            command.run(["panoptic", *flags, *more])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_the_command(two_sets, capsys):
    def crowd_and_unlisted(values):
        values["annotations"] = values["annotations"][:2]
        values["annotations"][0]["segments_info"][0]["iscrowd"] = 1
        values["annotations"][1]["segments_info"].pop()

    change(two_sets / "truth.json", crowd_and_unlisted)
    flags = [f"--gt_json_file={two_sets}/truth.json", f"--pred_json_file={two_sets}/found.json", "--num_categories=4"]
    with pytest.raises(SystemExit, match="0"):
        command.run(["panoptic", *flags, "--metric=pc", "--nonormalize_by_image_size", "--print_digits=4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"38 predictions of images that {two_sets}/truth.json does not list are left out")
    assert lines[1] == "2 images, in percent"
    assert [line.split()[0] for line in lines[2:]] == ["PC", "All", "Things", "Stuff", "person", "tree"]
    truth = panoptic.read_panoptic(two_sets / "truth.json")
    metric = ParsingCovering(Segments(4, 0, 256), normalize_by_image_size=False)
    panoptic.score_panoptic(metric, truth, panoptic.read_panoptic(two_sets / "found.json"))
    detailed = metric.detailed_results(truth.is_thing)
    assert lines[3].split()[1:] == [f"{100 * detailed['All']['pc']:.2f}", "2"]
    assert lines[6].split()[1] == f"{100 * metric.result_per_category()[1]:.2f}"
    first = json.loads((two_sets / "truth.json").read_text())["annotations"][0]["segments_info"]
    crowd = first[0]["area"]
    labelled = sum(int((drawn(seed).category > 0).sum()) for seed in (0, 1))
    assert metric.sums[1].sum() <= labelled - crowd


def _without_prediction(values):
    values["annotations"].pop()


def _twice(values):
    values["annotations"][0]["segments_info"].append(values["annotations"][0]["segments_info"][0])


def _outside(values):
    values["annotations"][0]["file_name"] = "../x.png"


def _instances(values):
    del values["annotations"][0]["segments_info"]


def _huge(values):
    values["annotations"][0]["segments_info"][0]["id"] = 2**24


def _category(values):
    values["annotations"][0]["segments_info"][0]["category_id"] = 9


def _thing(values):
    values["categories"][0]["isthing"] = "yes"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without_prediction, "no prediction for image_id 40 of .*truth.json; expected one for each image"),
        (_twice, "annotation 0: segment 1: expected one entry each"),
        (_outside, "file_name='../x.png'"),
        (_instances, "no segments_info; expected panoptic segmentations, not COCO's instances"),
        (_huge, "expected 0 to 16777215"),
        (_category, "prediction: category 9; expected 0 to 3"),
        (_thing, "isthing='yes'; expected 0 or 1"),
        (lambda values: values["annotations"].clear(), "no annotations"),
        (lambda values: values.pop("annotations"), "no 'annotations'"),
    ],
)
def test_files_that_are_refused(two_sets, edit, message):
    change(two_sets / "found.json", edit)
    metric = PanopticQuality(Segments(4, 0, 256))
    with pytest.raises(DeepLabError, match=message):
        truth, found = (panoptic.read_panoptic(two_sets / f"{name}.json") for name in ("truth", "found"))
        panoptic.score_panoptic(metric, truth, found)


def test_pictures_that_are_refused(two_sets):
    truth = panoptic.read_panoptic(two_sets / "truth.json")
    picture = two_sets / "found" / "0.png"
    for mode, size, message in (("L", (35, 24), "mode L"), ("RGB", (9, 9), "24 x 35 and 9 x 9 pixels")):
        Image.new(mode, size).save(picture)
        with pytest.raises(DeepLabError, match=message):
            found = panoptic.read_panoptic(two_sets / "found.json")
            panoptic.score_panoptic(PanopticQuality(Segments(4, 0, 256)), truth, found)
    with pytest.raises(DeepLabError, match="no such folder"):
        panoptic.read_panoptic(two_sets / "truth.json", two_sets / "nowhere")
    with pytest.raises(DeepLabError, match="category 2, which is not among"):
        panoptic.write_panoptic(two_sets / "new.json", [drawn(0)], {1: ("person", True)}, void=0)
    assert not (two_sets / "new").exists() and not (two_sets / "new.json").exists()
