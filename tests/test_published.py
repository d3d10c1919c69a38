"""The published rows: that they are all there, that their networks have the published sizes and costs, the command."""

import dataclasses
import re

import pytest
from commands import finished, one_line

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import cli, published
from deeplab_tf.zoo.published import LINEAGE, RESULTS, find
from deeplab_tf.zoo.released import CHECKPOINTS

# Rows of each paper, counted in it: those of its own networks.
COUNTS = {
    "v1": {"table1a": 10, "table1b": 5, "table2": 4},
    "v2": {
        "table1": 8,
        "table2": 5,
        "text": 3,
        "table3": 6,
        "table4": 7,
        "table5": 1,
        "table6": 8,
        "table7": 6,
        "table8": 2,
        "table9": 9,
    },
    "v3": {
        "table1": 6,
        "table2": 8,
        "table3": 20,
        "table4": 4,
        "table5": 5,
        "table6": 5,
        "table7": 2,
        "table8": 4,
        "table9": 4,
        "table10": 6,
        "table11": 6,
        "table12": 4,
        "table13": 1,
    },
    "v3plus": {"table1": 5, "table2": 6, "table3": 14, "table5": 24, "table6": 2, "table7a": 4, "table7b": 1},
    "mobilenet-v2": {"table7": 8},
    "auto-deeplab": {"table2": 4, "table3": 4, "table4": 4, "table5": 12, "table6": 3, "table7": 6},
}
# Scores that the papers' abstracts and the issue name.
HEADLINES = {
    "v1/table1b/msc-crf-largefov": 71.6,
    "v2/table5/crf-resnet-101": 79.7,
    "v3/table7/deeplabv3": 85.7,
    "v3/table7/deeplabv3-jft": 86.9,
    "v3/table6/os16": 77.21,
    "v3plus/table6/xception-65": 87.8,
    "v3plus/table6/xception-65-jft": 89.0,
    "v3plus/table7b/deeplabv3plus": 82.1,
    "mobilenet-v2/table7/os16": 75.32,
    "auto-deeplab/table4/l-coarse": 82.1,
    "zoo/xception65_coco_voc_trainval/os8-ms-flip": 87.8,
}


def test_every_table_is_whole():
    for system, tables in COUNTS.items():
        for table, count in tables.items():
            assert sum(name.startswith(f"{system}/{table}/") for name in RESULTS) == count, (system, table)
    scores = sum(len(entry.scores) for entry in CHECKPOINTS.values() if entry.kind == "segmentation")
    assert sum(name.startswith("zoo/") for name in RESULTS) == scores
    assert len(RESULTS) == sum(sum(tables.values()) for tables in COUNTS.values()) + scores


def test_headlines():
    assert {name: RESULTS[name].score for name in HEADLINES} == HEADLINES
    assert all(name in RESULTS for name, _ in LINEAGE.values())


def test_rows_are_in_order():
    for name, row in RESULTS.items():
        assert row.name == name and re.fullmatch(r"[a-z0-9.-]+/[a-z0-9_.-]+/[a-z0-9.-]+", name)
        assert 15 < row.score < 100 and row.source and isinstance(row.config, ModelConfig)
        assert bool(row.config.crop_size) == bool(row.config.image_pooling_crop_size)  # else for any size
        assert row.unmet == "" or row.parameters or row.multiply_adds
        assert row.split in ("val", "test", "val_fine", "test_fine")
        assert row.metric in ("mIoU", "pixel accuracy")


def test_tables_that_repeat_each_other_agree():
    scores = {name: row.score for name, row in RESULTS.items()}
    for (kernel, paper_1), paper_2 in zip(
        {"7x7-rate-4": "crf-7x7", "4x4-rate-4": "crf", "largefov": "crf-largefov"}.items(),
        ("7x7-rate-4-crf", "4x4-rate-4-crf", "largefov-crf"),
        strict=True,
    ):
        assert scores[f"v1/table2/{kernel}"] == scores[f"v1/table1a/{paper_1}"] == scores[f"v2/table1/{paper_2}"]
    for n in range(4):
        assert scores[f"v3/table2/resnet-101-block{4 + n}"] == scores[f"v3/table3/mg-1-1-1-block{4 + n}"]
    for label in ("os16", "os8", "os8-ms", "os8-ms-flip"):
        assert scores[f"v3/table6/{label}"] == scores[f"v3plus/table3/{label}"]
        assert RESULTS[f"v3/table6/{label}"].config == RESULTS[f"v3plus/table3/{label}"].config
    assert scores["zoo/xception65_coco_voc_trainaug/os16"] == scores["v3plus/table5/sc-coco-os16"]
    assert RESULTS["zoo/xception65_coco_voc_trainaug/os16"].config == RESULTS["v3plus/table5/sc-coco-os16"].config
    assert scores["zoo/mobilenetv2_coco_voc_trainaug/os16"] == scores["mobilenet-v2/table7/os16"]


def test_rows_differ_in_what_their_names_say():
    configs = {name: row.config for name, row in RESULTS.items()}
    largefov = configs["v1/table1a/largefov"]
    assert (largefov.fc_kernel_size, largefov.fc_filters, largefov.atrous_rates) == (3, 1024, (12,))
    assert configs["v1/table1a/msc-largefov"] == dataclasses.replace(largefov, multi_scale_features=True)
    assert configs["v2/table3/aspp-s"] == dataclasses.replace(largefov, atrous_rates=(2, 4, 8, 12))
    assert configs["v2/table4/msc-coco-aug-aspp"].image_pyramid == (0.5, 0.75, 1.0)
    cascade = configs["v3/table4/os8"]
    assert (cascade.cascade_blocks, cascade.multi_grid, cascade.output_stride) == (3, (1, 2, 1), 8)
    assert configs["v3/table1/os256"].output_stride == 256
    assert configs["v3/table6/os8"].atrous_rates == (12, 24, 36)
    assert configs["v3plus/table2/conv3-conv2-3x3-256"].decoder_output_stride == (8, 4)
    assert configs["v3plus/table5/os16"].decoder_output_stride is None
    assert RESULTS["v3plus/table5/sc-jft-os16"].pretraining == ("ImageNet", "JFT-300M", "MS-COCO")


def met_or_excused(comparison: published.Comparison) -> bool:
    return comparison.met != bool(comparison.result.unmet)


@pytest.mark.heavy
@pytest.mark.parametrize("system", [*COUNTS, "zoo"])
def test_costs_of_every_row_that_has_one(system):
    rows = [r for n, r in RESULTS.items() if n.startswith(f"{system}/") and (r.parameters or r.multiply_adds)]
    found = list(published.comparisons(rows))
    assert len(found) == len(rows)
    assert not {c.result.name: c.deviations for c in found if not met_or_excused(c)}
    named = {c.result.name: c for c in found}
    if system == "v1":
        assert named["v1/table2/largefov"].parameters == 20_505_429
    if system == "mobilenet-v2":
        assert named["mobilenet-v2/table7/os16"].deviations.keys() == {"parameters", "multiply_adds"}
    if system == "zoo":
        assert not named["zoo/mobilenetv3_small_cityscapes_trainfine/os32"].met


def test_the_command_lists_all_rows_or_some(capsys):
    assert finished(cli.main, "published") == 0
    assert sum(line.split()[:1] == [name] for line in capsys.readouterr().out.splitlines() for name in RESULTS) == len(
        RESULTS
    )
    assert finished(cli.main, "published", "--filter=v1 table2") == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if "v1/table2/7x7" in line]
    assert row[:4] == ["v1/table2/7x7-rate-4", "67.64", "pascal_voc_seg", "val"] and "134.30M" in row
    assert not [line for line in lines if "v2/" in line]


def test_words_are_looked_for_in_names_sources_and_settings():
    assert find("") == list(RESULTS.values())
    assert {r.name for r in find("V1 TABLE2 7x7")} == {"v1/table2/7x7-rate-4"}
    assert {r.source for r in find("1412.7062 table2")} == {"arXiv 1412.7062, table 2"}
    assert all(r.crf for r in find("crf v2/table3/"))
    with pytest.raises(DeepLabError, match="no published row.*auto-deeplab, mobilenet-v2, v1"):
        find("v9")


def test_check(capsys, monkeypatch):
    words = "--filter=mobilenetv2_dm05_coco_voc_trainval/"
    assert finished(cli.main, "published", words, "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("zoo/mobilenetv2_dm05_coco_voc_trainval/os8: multiply-adds ")
    assert lines[-1] == "1 networks build; 1 rows meet their figures to 1 %, 0 differ for a known reason"
    name = "zoo/mobilenetv2_dm05_coco_voc_trainval/os8"
    for change in ({"multiply_adds": 1e9}, {"unmet": "it is met"}):
        monkeypatch.setitem(RESULTS, name, dataclasses.replace(RESULTS[name], **change))
        assert finished(cli.main, "published", words, "--check") == 1
        assert name in capsys.readouterr().out.splitlines()[-1]
        monkeypatch.undo()


def test_an_unknown_word_is_one_line(capsys):
    assert finished(cli.main, "published", "--filter=v9") == 1
    assert "--filter='v9'" in one_line(capsys.readouterr().err)


@pytest.mark.heavy
def test_lineage_has_a_row_a_system(capsys):
    assert finished(cli.main, "published", "--lineage") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(LINEAGE) and {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "| DeepLab-v1 | vgg16 | 21.71M |" in lines[2] and "71.6 % (test, OS 8, CRF)" in lines[2]
