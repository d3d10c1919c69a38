"""The report of an evaluation: its figures against ones computed apart, and its page as text and in a browser."""

import base64
import collections
import csv
import dataclasses
import html.parser
import io
import json
import math
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from axe import violations
from chromium import chromium, find_chromium
from commands import finished
from record_files import example_of, write_records

import deeplab_tf
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import EvalConfig
from deeplab_tf.data import find, record_index, records
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report import writing
from deeplab_tf.evaluation.report.collecting import chosen, conventions_for, void_is_between
from deeplab_tf.evaluation.report.published import comparable
from deeplab_tf.evaluation.report.tally import Tally
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.metrics import confusion_matrix, iou_per_class, mean_iou
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.zoo.published import RESULTS
from deeplab_tf.zoo.released import CHECKPOINTS

COUNT, SIZE = 7, (97, 129)
NAMES = [f"shapes_{index}" for index in range(COUNT - 2)] + ["<i>odd</i> & 'name'", "only void"]


def examples() -> list[tuple[np.ndarray, np.ndarray]]:
    found = [shapes_example(0, FIRST_INDEX["val"] + i, height=SIZE[0], width=SIZE[1]) for i in range(COUNT)]
    found[-1] = (found[-1][0], np.full(SIZE, 255, np.uint8))
    return found


def options(folder: pathlib.Path, split: str, count: int) -> list[str]:
    records = [example_of(name, *pair) for name, pair in zip(NAMES, examples(), strict=True)]
    data = write_records(folder, split, records[:count])
    flags = {"checkpoint_dir": "shapes_resnet", "dataset_dir": data, "eval_split": split, "report": folder / "out"}
    return [f"--{name}={value}" for name, value in flags.items()] + ["--eval_crop_size=97,129", "--eval_batch_size=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A report of the embedded network on seven pictures, one of them without a label."""
    path = tmp_path_factory.mktemp("report")
    assert finished(eval_tool, *options(path, "val", COUNT), name="deeplab-tf eval") == 0
    return path / "out"


@pytest.fixture(scope="module")
def metrics(folder) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def model():
    return deeplab_tf.load("shapes_resnet", crop_size=SIZE)[1]


@pytest.fixture(scope="module")
def maps(model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Label and prediction of each picture."""
    return [(label, deeplab_tf.predict(model, image[None])[0]) for image, label in examples()]


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, what is still open at its end, and its text."""

    VOID = {"meta", "img"}

    def __init__(self, content: str):
        super().__init__()
        self.tags, self.open, self.text, self.cells = [], [], "", []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else, near {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# ---- figures


def test_metrics_are_those_computed_apart(metrics, maps):
    matrix = sum(confusion_matrix(label, found, 9) for label, found in maps)
    assert metrics["confusion_matrix"] == matrix.tolist() and metrics["examples"] == COUNT
    assert metrics["scores"]["miou"] == mean_iou(matrix)
    iou = [math.nan if row["iou"] is None else row["iou"] for row in metrics["classes"]]
    np.testing.assert_array_equal(iou, iou_per_class(matrix))
    assert [row["name"] for row in metrics["classes"]] == list(DATASETS["shapes"].class_names)
    assert metrics["trimap"]["around"] == "class boundaries" and metrics["trimap"]["miou"][-1] is not None
    for name, (low, high) in metrics["intervals"]["scores"].items():
        assert low <= metrics["scores"][name] <= high, name
    assert {"miou", "boundary_iou", "boundary_f"} <= set(metrics["intervals"]["scores"])
    wrong = matrix - np.diag(np.diag(matrix))
    worst = metrics["most_confused"][0]
    assert worst["pixels"] == wrong.max() == wrong[worst["class"], worst["prediction"]]


def test_calibration_is_that_of_the_network_s_probabilities(metrics, model):
    confidence, right = [], []
    for image, label in examples():
        found = predictor_of(model).probabilities(image[None].astype(np.float32))[0]
        confidence.append(found.max(-1)[label != 255])
        right.append((found.argmax(-1) == label)[label != 255])
    confidence, right = np.concatenate(confidence).astype(float), np.concatenate(right)
    place = np.minimum(np.floor(confidence * 15), 14)
    gaps = [abs(confidence[place == i].sum() - right[place == i].sum()) for i in range(15)]
    assert metrics["calibration"]["ece"] == pytest.approx(sum(gaps) / len(right), abs=1e-6)
    assert sum(metrics["calibration"]["share"]) == pytest.approx(1) and metrics["calibration"]["images"] == COUNT


def test_the_table_of_images(folder, maps):
    rows = list(csv.DictReader(io.StringIO((folder / "per_image.csv").read_text(encoding="utf-8"))))
    assert [row["name"] for row in rows] == NAMES
    for row, (label, found) in zip(rows[:-1], maps, strict=False):
        assert float(row["miou"]) == mean_iou(confusion_matrix(label, found, 9))
    assert rows[-1]["miou"] == rows[-1]["confused_class"] == "" and rows[-1]["ignored"] == "1.0"


def test_it_says_what_was_measured_and_how(metrics, page):
    assert metrics["command"].startswith("deeplab-tf eval --checkpoint_dir=shapes_resnet --report=")
    assert "--eval_crop_size=97,129" in metrics["command"] and metrics["command"] in page.text
    assert metrics["configuration"]["output_stride"] == 16 and "output_stride: 16" in page.text
    assert metrics["contaminated"] is None and "Contaminated" not in page.text


def test_weights_scored_on_what_they_were_trained_on_are_marked(tmp_path):
    assert finished(eval_tool, *options(tmp_path, "train", 2), f"--eval_logdir={tmp_path / 'log'}") == 0
    words = json.loads((tmp_path / "out" / "metrics.json").read_text())["contaminated"]
    assert "train" in words
    assert f"Contaminated: {words}" in Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    assert json.loads((tmp_path / "log" / "metrics.jsonl").read_text())["contaminated"] == words


def test_data_and_records_are_opened_once(tmp_path, monkeypatch):
    """However many parts of the command ask for them: its table, its bar, its scores and its report."""
    calls = collections.Counter()

    def counted(module, name: str):
        original = getattr(module, name)

        def counting(*arguments, **options):
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    counted(record_index, "index_shards")
    counted(records, "find_shards")
    counted(find, "find_dataset")
    assert finished(eval_tool, *options(tmp_path, "train", 2)) == 0
    assert calls == {"index_shards": 1, "find_shards": 1, "find_dataset": 1}


# ---- the page as text


def test_the_page_needs_nothing_else(page, folder):
    assert not page.open
    sources = [
        value for _, tag in page.tags for name, value in tag.items() if name in ("src", "href", "srcset", "data")
    ]
    assert sources and all(value.startswith(("data:image/", "#")) for value in sources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<link|<iframe", text)
    assert {"http-equiv", "content"} <= set(page.of("meta")[2]) and "default-src 'none'" in page.of("meta")[2][
        "content"
    ]
    assert "width=device-width" in page.of("meta")[1]["content"] and "prefers-color-scheme: dark" in text
    anchors = {tag["id"] for _, tag in page.tags if "id" in tag}
    assert {tag["href"].removeprefix("#") for tag in page.of("a")} == anchors


def test_the_page_has_the_figures_and_the_names(page, metrics):
    text = " ".join(page.text.replace("\xa0", " ").split())
    assert f"shapes val: mean IoU {100 * metrics['scores']['miou']:.2f} %" in text
    for row in metrics["classes"]:
        assert f"{row['name']}{100 * row['iou']:.1f} %{100 * row['accuracy']:.1f} %" in text if row["iou"] else True
    low, high = metrics["intervals"]["scores"]["miou"]
    assert f"{100 * low:.1f} to {100 * high:.1f}" in text
    names = [row["name"] for row in metrics["classes"]]
    worst = metrics["most_confused"][0]
    assert f"{names[worst['class']]}{names[worst['prediction']]}" in text
    assert "<i>odd</i> & 'name'" in page.text  # as text, not as a tag
    assert not page.of("i") or all("class" in tag or "style" in tag for tag in page.of("i"))


def test_the_pictures_are_those_of_the_images(page, maps):
    pictures = page.of("img")
    assert all(tag["alt"] for tag in pictures) and {tag["alt"] for tag in pictures[24:]} <= {
        f"{name} of {kind}" for name in NAMES for kind in DATASETS["shapes"].class_names
    }
    pictures = pictures[:24]
    palette = np.array(DATASETS["shapes"].palette + ((224, 224, 192),))
    for photo, label, prediction, difference in zip(*(iter(pictures),) * 4, strict=True):
        index = NAMES.index(photo["alt"].removeprefix("photo of "))
        decoded = [np.array(tf.io.decode_image(_content(tag), channels=3)) for tag in (photo, label, prediction)]
        image, (true, found) = examples()[index][0], maps[index]
        blocks = [a[:96, :128].reshape(12, 8, 16, 8, 3).mean((1, 3)) for a in (decoded[0], image)]  # it is a JPEG
        assert np.abs(blocks[0] - blocks[1]).max() < 15
        np.testing.assert_array_equal(decoded[1], palette[np.where(true == 255, 9, true)])
        np.testing.assert_array_equal(decoded[2], palette[found])
        marked = np.array(tf.io.decode_image(_content(difference), channels=3)).astype(int)
        wrong = (true != found) & (true != 255)
        redness = marked[..., 0] - marked[..., 2]
        assert wrong.sum() < 20 or redness[wrong].mean() > 60 > 20 > abs(redness[true == found].mean())


def _content(tag: dict) -> bytes:
    return base64.b64decode(tag["src"].partition("base64,")[2])


# ---- the page in a browser

USED = """(() => {
  const found = {}, tables = [...document.querySelectorAll("table.sortable")];
  for (const part of document.querySelectorAll("details")) part.open = true;
  found.pictures = [...document.images].map((image) => [image.complete, image.naturalWidth, image.clientWidth]);
  const press = (table, at) => {
    table.tHead.rows[0].cells[at].querySelector("button").click();
    return [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
  };
  const images = tables[tables.length - 1];
  found.scores = [press(images, 1), press(images, 1)];
  found.order = images.tHead.rows[0].cells[1].getAttribute("aria-sort");
  found.names = press(images, 0);
  found.classes = press(tables.find((table) => table.querySelector(".bar")), 1);
  found.wide = [document.documentElement.scrollWidth, innerWidth];
  found.paper = getComputedStyle(document.body).backgroundColor;
  return found;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_chromium() is None:
        pytest.skip("no chromium: apt-get install chromium-headless-shell")
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


def test_the_browser_s_complaints_are_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>missing.thing()</script>")
    browser.open((tmp_path / "bad.html").as_uri())
    assert "missing is not defined" in str(browser.complaints())


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_in_a_browser(browser, folder, width, dark):
    browser.events.clear()
    browser.size(width, 900, dark=dark)
    browser.open((folder / "report.html").as_uri(), "document.readyState === 'complete' && document.images.length")
    found = browser.run(USED)
    assert browser.complaints() == []
    assert len(found["pictures"]) > 24
    assert violations(browser) == []
    assert all(complete and natural > 90 and shown > 90 for complete, natural, shown in found["pictures"])

    def number(text):
        return float(text.replace("\xa0%", "")) if text != "\u2013" else None

    down, up = ([number(text) for text in order] for order in found["scores"])
    assert down[-1] is up[-1] is None, "what has no score is last both ways"
    assert down[:-1] == sorted(down[:-1], reverse=True) and up[:-1] == sorted(up[:-1]) == down[-2::-1]
    assert found["order"] == "ascending" and found["names"] == sorted(found["names"], key=str.lower)
    classes = [number(text) for text in found["classes"] if number(text) is not None]
    assert classes == sorted(classes, reverse=True) and len(classes) > 5
    assert found["wide"][0] <= found["wide"][1], "the page is wider than its window"
    red, green, blue = map(int, re.findall(r"\d+", found["paper"]))
    assert max(red, green, blue) < 60 if dark else min(red, green, blue) > 200


# ---- parts


@pytest.fixture
def written(monkeypatch, metrics):
    """What has been collected of no image at all, and figures to write."""
    monkeypatch.setattr(writing, "metrics_of", lambda *_, **__: metrics)
    return types.SimpleNamespace(tally=Tally(9), shown=list, galleries=list, facts=DATASETS["shapes"])


def test_a_report_is_replaced_whole_or_not_at_all(written, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DeepLabError, match="--report=.*out: cannot be written.*space"):
        patch.setattr(os, "replace", full)
        writing.write_report(tmp_path / "out", None, written)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    writing.write_report(tmp_path / "out", None, written)
    assert (tmp_path / "out" / "per_image.csv").read_text().count("\n") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(before)


def test_a_folder_that_cannot_be_written_names_the_flag(written, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeepLabError, match="--report=.*file.*cannot be written"):
        writing.write_report(tmp_path / "file", None, written)


def test_a_folder_that_cannot_be_made_is_known_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    flags = [f"--report={tmp_path / 'file'}", "--checkpoint_dir=shapes_resnet", f"--dataset_dir={tmp_path}"]
    assert finished(eval_tool, *flags) == 1 and "--report=" in capsys.readouterr().err
    assert finished(eval_tool, "--checkpoint_dir=shapes_resnet", f"--dataset_dir={tmp_path}") == 1
    assert "--eval_logdir is missing" in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 11, 40])
def test_which_images_are_shown(count):
    tally, label = Tally(2), np.zeros((10, 10), int)
    for index in np.random.default_rng(count).permutation(count):
        tally.add(label, (np.arange(100) < 2 * index + 2).astype(int).reshape(10, 10), f"{index}")
    tally.add(np.full((10, 10), 255), label, "void")
    groups = {name: [int(image.name) for image in group] for name, group in chosen(tally.images).items()}
    shown = [index for group in groups.values() for index in group]
    assert len(set(shown)) == len(shown) == min(12, count // 3 * 3 or count)
    if count:
        assert groups["The worst images"][0] == count - 1
    if count >= 12:
        assert groups["The best images"] == [0, 1, 2, 3] and set(groups["Images in the middle"]) == {18, 19, 20, 21}


def test_images_that_look_alike_are_shown_once():
    """Of frames 0 to 9, 10 to 19... of one street each one; where there are no others, those alike after all."""
    tally, label = Tally(2), np.zeros((10, 10), int)
    for index in range(100):
        tally.add(label, (np.arange(100) < index + 1).astype(int).reshape(10, 10), f"{index}")
    groups = chosen(tally.images, alike=lambda one, other: one // 10 == other // 10)
    assert [[image.index for image in group] for group in groups.values()] == [
        [99, 89, 79, 69],
        [51, 49, 39, 29],
        [0, 10, 20, 30],
    ]
    same = chosen(tally.images, alike=lambda _one, _other: True)
    assert [image.index for image in same["The worst images"]] == [99, 98, 97, 96]


def test_the_published_score_beside_it():
    entry = CHECKPOINTS["mobilenetv2_coco_voc_trainaug"]
    network = dataclasses.replace(entry.config_for(entry.scores[1]), crop_size=(513, 513))
    config = EvalConfig(eval_scales=entry.scores[1].scales, add_flipped_images=True)
    rows = comparable(network, config, dataset="pascal_voc_seg", split="val")
    assert rows[0]["same"] and f"zoo/{entry.name}/os8-ms-flip" in [row["name"] for row in rows]
    assert {row["miou"] for row in rows if row["name"].startswith("zoo/")} == {entry.scores[1].value / 100}
    other = dataclasses.replace(network, aspp_convs_filters=64)
    nearest = comparable(other, EvalConfig(), dataset="pascal_voc_seg", split="val")
    assert len(nearest) == 3 and not any(row["same"] for row in nearest)
    assert all(RESULTS[row["name"]].config.model_variant == "mobilenet_v2" for row in nearest)
    assert comparable(network, config, dataset="shapes", split="val") == []


@pytest.mark.parametrize("name", [name for name, entry in CHECKPOINTS.items() if entry.kind == "segmentation"])
def test_every_published_score_of_the_zoo_is_found(name):
    entry = CHECKPOINTS[name]
    for score in entry.scores:
        if score.metric != "mIoU":
            continue
        network = dataclasses.replace(entry.config_for(score), crop_size=(513, 513))
        config = EvalConfig(eval_scales=score.scales, add_flipped_images=score.flip)
        how = {"dataset": entry.dataset, "split": score.split}
        rows = comparable(network, config, **how, longest_side=score.longest_side)
        assert score.value / 100 in [row["miou"] for row in rows if row["name"].startswith(f"zoo/{name}/")]
        assert all(row["same"] for row in rows)
        if score.longest_side:  # at their own size the images are others
            assert not any(row["same"] for row in comparable(network, config, **how))
            assert f"longest side {score.longest_side}" in rows[0]["settings"]


def test_conventions_are_those_of_the_data_set():
    """Nineteen classes alone do not make Cityscapes' categories."""
    own = types.SimpleNamespace(class_names=tuple(map(str, range(19))))
    assert conventions_for(own) == ["release"]
    found = {name: conventions_for(facts) for name, facts in DATASETS.items()}
    assert found["cityscapes"] == ["release", "cityscapes"] and found["ade20k"] == ["release", "ade"]
    assert found["pascal_voc_seg"] == ["release", "voc"] and found["shapes"] == ["release"]


def test_void_between_objects_is_voc_s_alone():
    """The papers' bands lie around void; where void means something else, they lie around class boundaries."""
    for name, expected in (("pascal_voc_seg", True), ("shapes", False)):
        facts = DATASETS[name]
        assert void_is_between(facts) == expected
        renamed = types.SimpleNamespace(**{**vars(facts), "name": "mine"})
        assert void_is_between(renamed) == expected
