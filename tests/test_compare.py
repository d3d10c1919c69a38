"""deeplab-tf compare: differences against ones computed apart, what is refused, and the page."""

import json
import pathlib

import numpy as np
import pytest
from axe import violations
from chromium import chromium, find_chromium
from commands import finished
from test_report import Page

from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report.comparison import compare, comparison_table
from deeplab_tf.evaluation.report.counts import ReportCounts, read_counts
from deeplab_tf.evaluation.report.tally import Tally
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou
from deeplab_tf.tools import compare as compare_tool

NAMES = ("sky", "road", "<i>tree</i>")
IMAGES = [f"image {i}" for i in range(12)]


def maps(wrong: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels, 255 among them, and predictions of which a share is random."""
    found = []
    for seed in range(len(IMAGES)):
        random = np.random.default_rng(seed)
        label = random.choice([0, 1, 2, 255], (16, 20), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        noise = random.integers(0, 3, label.shape)
        prediction = np.where((random.random(label.shape) < wrong) | (label == 255), noise, label)
        found.append((label, prediction))
    return found


def report(folder: pathlib.Path, pairs, names=IMAGES, **changes) -> pathlib.Path:
    tally = Tally(len(NAMES))
    for name, pair in zip(names, pairs, strict=True):
        tally.add(*pair, name)
    known = {"checkpoint": "a/model.ckpt-5", "step": 5, "dataset": "mine", "split": "val", "ignore_label": 255}
    known |= {"class_names": NAMES, "palette": ((0, 0, 0), (9, 9, 9), (1, 2, 3)), "images": (*tally.image_counts(),)}
    folder.mkdir(parents=True)
    (folder / "counts.json").write_text(ReportCounts(**{**known, **changes}).to_json())
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[pathlib.Path, pathlib.Path]:
    return report(tmp_path / "a", maps(0.5)), report(tmp_path / "b", maps(0.2))


def matrix(pairs) -> np.ndarray:
    return sum(confusion_matrix(label, prediction, 3) for label, prediction in pairs)


def test_differences_are_those_computed_apart(two):
    found = compare(*two)
    one, other = matrix(maps(0.5)), matrix(maps(0.2))
    miou = found["scores"][0]
    assert (miou["a"], miou["b"]) == pytest.approx((mean_iou(one), mean_iou(other)))
    assert miou["difference"] == pytest.approx(mean_iou(other) - mean_iou(one))
    changes = iou_per_class(other) - iou_per_class(one)
    assert [row["difference"] for row in found["classes"]] == pytest.approx(changes.tolist())
    assert [image["name"] for image in found["images"]] == IMAGES
    assert found["images"][3]["b"] == pytest.approx(mean_iou(matrix(maps(0.2)[3:4])))


def test_the_interval_is_of_the_same_draws_for_both(two):
    miou = compare(*two)["scores"][0]
    one, other = ([confusion_matrix(*pair, 3) for pair in maps(wrong)] for wrong in (0.5, 0.2))
    random = np.random.default_rng(0)
    draws = [random.integers(0, len(IMAGES), len(IMAGES)) for _ in range(1000)]
    changes = [mean_iou(sum(other[i] for i in draw)) - mean_iou(sum(one[i] for i in draw)) for draw in draws]
    assert (miou["low"], miou["high"]) == pytest.approx(np.quantile(changes, (0.025, 0.975)))
    assert compare(*two) == compare(*two)


def test_one_with_itself_and_one_image_alone(two, tmp_path):
    same = compare(two[0], two[0])
    assert {(row["difference"], row["low"], row["high"]) for row in (*same["scores"], *same["classes"])} == {(0, 0, 0)}
    pairs = [report(tmp_path / name, maps(wrong)[:1], IMAGES[:1]) for name, wrong in (("c", 0.5), ("d", 0.2))]
    alone = compare(*pairs)
    assert alone["scores"][0]["low"] is None and alone["scores"][0]["difference"] > 0
    assert "one image alone" in written(pairs, tmp_path / "out")[0].text


def test_images_in_another_order_go_together_by_name(two, tmp_path):
    turned = report(tmp_path / "turned", maps(0.2)[::-1], IMAGES[::-1])
    assert compare(two[0], turned)["images"] == compare(*two)["images"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("sky", "path", NAMES[2])}, "other classes: class 1 is 'road' and 'path'"),
        ({"class_names": NAMES[:2], "palette": ((0, 0, 0),) * 2, "images": ()}, "no images"),
        ({"palette": ()}, "palette: expected 3 colours"),
        ({"palette": ((0, 0, 256),) * 3}, "palette: expected 3 colours of 0..255"),
        ({"class_names": ()}, "no classes"),
    ],
)
def test_other_classes_are_refused(two, tmp_path, changes, message):
    with pytest.raises(DeepLabError, match=message):
        compare(two[0], report(tmp_path / "c", maps(0.2), **changes))


def test_other_images_and_labels_are_refused(two, tmp_path):
    fewer = report(tmp_path / "fewer", maps(0.2)[1:], IMAGES[1:])
    with pytest.raises(DeepLabError, match=r"other images \(12 and 11\): 'image 0' is in .*a alone; evaluate both on"):
        compare(two[0], fewer)
    with pytest.raises(DeepLabError, match=r"other images \(11 and 12\): 'image 0' is in .*a alone"):
        compare(fewer, two[0])
    turned = report(tmp_path / "turned", maps(0.2)[::-1])
    with pytest.raises(DeepLabError, match=r"other labels: 12 of 12 images .* 'image 0' among them"):
        compare(two[0], turned)
    repeated = ["same"] * 2 + IMAGES[2:]
    reports = [report(tmp_path / name, maps(0.2), names) for name, names in (("r", repeated), ("s", repeated[::-1]))]
    with pytest.raises(DeepLabError, match="their names repeat, in another order"):
        compare(*reports)
    assert compare(reports[0], reports[0])["images"][0]["name"] == "same"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not the folder of a report: no counts.json; run deeplab-tf eval --report="),
        ("", "counts.json: not JSON"),
        ("[1]", "counts.json: Expected"),
        ('{"images": 3}', "counts.json: "),
        (b"\xff\xfe", "counts.json: not UTF-8"),
        ([[0, 5, 4, 9]], "'x': expected pixels, of which those that are right are the fewest"),
        ([[0, -1, 4, 9]], "'x': expected pixels"),
        ([[0, 1, 1, 2**60]], "'x': expected pixels"),
        ([[3, 1, 1, 1]], r"'x': expected each of the classes 0..2 once"),
        ([[1, 1, 1, 1], [1, 1, 1, 1]], r"'x': expected each of the classes 0..2 once"),
        ([[1.5, 1, 1, 1]], "counts.json: Expected `int`"),
    ],
)
def test_damaged_counts_are_one_line(two, content, message):
    file = two[1] / "counts.json"
    if content is None:
        file.unlink()
    elif isinstance(content, list):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "images": [{"name": "x", "classes": content}]}))
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DeepLabError, match=message) as raised:
        read_counts(two[1])
    assert "\n" not in str(raised.value)


def test_a_report_of_an_earlier_version(two):
    (two[0] / "counts.json").rename(two[0] / "metrics.json")
    with pytest.raises(DeepLabError, match="written by an earlier version: no counts.json; run deeplab-tf eval"):
        read_counts(two[0])


# ---- the command


def written(two, out: pathlib.Path) -> tuple[Page, dict]:
    assert finished(compare_tool, *map(str, two), f"--output_dir={out}") == 0
    page = Page((out / "compare.html").read_text())
    assert not page.open
    return page, json.loads((out / "compare.json").read_text())


def test_the_table_and_the_files(two, tmp_path, capsys):
    page, values = written(two, tmp_path / "out dir")
    found = compare(*map(str, two))
    assert values == json.loads(json.dumps(found))
    printed = capsys.readouterr().out
    assert comparison_table(found) in printed
    miou = found["scores"][0]
    row = next(line for line in printed.splitlines() if line.startswith("mean IoU"))
    assert row.split()[2:5] == [f"{100 * miou['a']:.2f}", f"{100 * miou['b']:.2f}", f"{100 * miou['difference']:+.2f}"]
    assert "12 images: B is better in" in printed
    assert "<i>tree</i>" in page.text
    assert "does not hold 0: B is better" in page.text.replace("\n", " ")
    assert not page.of("img") and len(page.of("script")) == 1


@pytest.mark.heavy
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_in_a_browser(two, tmp_path, width, dark):
    if find_chromium() is None:
        pytest.skip("no chromium: apt-get install chromium-headless-shell")
    written(two, tmp_path / "out")
    with chromium(tmp_path) as page:
        page.size(width, 900, dark=dark)
        page.open((tmp_path / "out/compare.html").as_uri())
        assert page.complaints() == [] and violations(page) == []
        assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--reports: none; expected the two folders that eval --report wrote"),
        (("a", "b", "c"), "--reports: a, b, c; expected the two folders that eval --report wrote"),
        (("nowhere", "neither"), "nowhere: is not the folder of a report"),
    ],
)
def test_mistakes_of_the_command(arguments, message, capsys):
    assert finished(compare_tool, *arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_a_folder_that_cannot_be_written(two, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert finished(compare_tool, *map(str, two), f"--output_dir={tmp_path / 'file'}") == 1
    assert "--output_dir" in capsys.readouterr().err
