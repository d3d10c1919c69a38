"""The page of a report from figures that are written here: what it says, and what it must not let through."""

import io
import re

import numpy as np
import PIL.Image
import pytest
from test_report import Page

from deeplab_tf.evaluation.report.page import Picture, Shown, render
from deeplab_tf.evaluation.report.tally import Tally


def written(names: list[str], **changes) -> dict:
    """What metrics.json would hold of a data set with these classes."""
    rows = [
        {"index": i, "name": name, "iou": 0.5, "accuracy": 0.6, "precision": 0.7, "dice": 0.8, "boundary_iou": None}
        | {"boundary_f": None, "labelled": 10, "predicted": 10}
        for i, name in enumerate(names)
    ]
    scores = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice", "kappa")
    scores += ("boundary_iou", "boundary_f")
    return {
        "checkpoint": "a/model.ckpt-5",
        "step": 12345,
        "dataset": "mine",
        "split": "val",
        "examples": 2,
        "contaminated": None,
        "scores": dict.fromkeys(scores, 0.25) | {"kappa": None},
        "intervals": {"level": 0.95, "resamples": 1000, "scores": {"miou": [0.2, 0.3]}},
        "conventions": {"release": 0.25, "voc": None},
        "classes": rows,
        "most_confused": [{"class": 0, "prediction": 1, "pixels": 4}],
        "trimap": {"around": "void", "widths": [1, 2], "miou": [None, 0.5], "pixel_accuracy": [0.5, 0.6]},
        "calibration": None,
        "confusion_matrix": np.full((len(names), len(names)), 5).tolist(),
        "published": [],
        "configuration": {"output_stride": 16, "unset": None},
        "command": "deeplab-tf eval --checkpoint_dir='a b'",
        "version": "1",
        **changes,
    }


def shown(name: str) -> Shown:
    scores = Tally(2).add(np.zeros((4, 4), int), np.eye(4, dtype=int), name)
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return Shown(
        "The worst images", scores, [Picture("label", "png", buffer.getvalue(), [(0, 0.5, 0.5)])], [(0, 1, 0.75)]
    )


def rendered(metrics: dict, name: str = "image") -> Page:
    one, palette = shown(name), [(1, 2, 3)] * len(metrics["classes"])
    page = Page(render(metrics, [one.scores], [one], palette))
    assert not page.open
    return page


def test_names_are_text_whatever_they_are():
    hostile = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\""
    metrics = written([hostile, "b"], dataset=hostile, split=hostile, checkpoint=hostile, command=hostile)
    page = rendered({**metrics, "configuration": {hostile: hostile}, "contaminated": hostile}, hostile)
    assert len(page.of("script")) == 1 and len(page.of("img")) == 1
    assert not any(name.startswith("on") for _, tag in page.tags for name in tag)
    assert page.text.count("alert(1)") >= 10


def test_a_contaminated_score_is_marked():
    assert "Contaminated: seen before" in rendered(written(["a", "b"], contaminated="seen before")).text
    assert "Contaminated" not in rendered(written(["a", "b"])).text


def test_one_image_has_no_intervals():
    ends = {"level": 0.95, "resamples": 1000, "scores": {"miou": [None, None]}}
    text = rendered(written(["a", "b"], examples=1, intervals=ends)).text
    assert "of one image alone" in text and "draws" not in text and " to " not in text.partition("weighted IoU")[0]
    assert "1,000 draws" in rendered(written(["a", "b"])).text


def test_conventions_are_told_where_there_are_several():
    assert "by convention: release 25.00" in rendered(written(["a", "b"])).text
    assert "convention" not in rendered(written(["a", "b"], conventions={"release": 0.25})).text


def test_labels_without_void_have_no_trimap():
    nothing = {"around": "void", "widths": [1, 2], "miou": [None, None], "pixel_accuracy": [None, None]}
    page = rendered(written(["a", "b"], trimap=nothing))
    assert "The labels have no void" in page.text and not page.of("svg")
    assert len(rendered(written(["a", "b"])).of("svg")) == 1


def test_what_is_undefined_is_a_dash():
    text = rendered(written(["a", "b"])).text
    assert "kappa\u2013" in text and "voc \u2013" in text and "nan" not in text.lower()


@pytest.mark.parametrize("same", [True, False])
def test_the_published_score(same):
    row = {"name": "zoo/x", "miou": 0.2, "settings": "OS 16", "source": "paper", "same": same}
    text = rendered(written(["a", "b"], published=[row])).text.replace("\xa0", " ")
    assert "zoo/x20.00 %+5.00OS 16; paper" in text and ("None is published" in text) != same
    assert "No published score" in rendered(written(["a", "b"], dataset="pascal_voc_seg")).text
    assert "published" not in rendered(written(["a", "b"], dataset="my_photographs")).text


def test_large_matrices_are_left_to_the_file():
    few, many = (rendered(written([f"class {i}" for i in range(count)])) for count in (40, 41))
    assert sum("matrix" in tag.get("class", "") for tag in few.of("table")) == 1
    assert not any("matrix" in tag.get("class", "") for tag in many.of("table"))
    assert "metrics.json has the matrix of all 41 classes" in many.text


def test_classes_are_named_in_the_pictures():
    page = rendered(written(["sky", "road"]))
    styles = [tag["style"] for tag in page.of("span") if "left" in tag.get("style", "")]
    assert styles == ["left:50%;top:50%;transform:translate(-50%,-50%)"]
    assert re.search(r"sky 100\.0.% → 75\.0.%", page.text)
