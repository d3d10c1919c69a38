"""The files of the release (research/deeplab of tensorflow/models), each with its counterpart here and what tests it.

`python docs/hooks/release_flags.py` writes them into docs/coming-from/release_files.md; tests/test_release_files.py
looks at every row: what it names exists, and no file of the release is left out.
"""

import dataclasses
import pathlib
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """What has taken the place of files of the release.

    Attributes:
      here: commands, files and pages of this project, as Markdown.
      tests: the tests of it.
    """

    here: str
    tests: tuple[str, ...]


def _for(here: str, *tests: str) -> Counterpart:
    return Counterpart(here, tests)


_GOLDENS = "tests/test_goldens.py"
_LINES = "tests/test_release_command_lines.py"
_PANOPTIC = "tests/test_panoptic.py"
_PAGES = "tests/test_pages.py"

_PACKAGE = _for("`deeplab_tf/__init__.py`: what `import deeplab_tf` offers", "tests/test_site.py")
_OPTIONS = _for(
    "`deeplab_tf/config/model.py`: `ModelConfig`, from which the flags derive", "tests/test_config.py", _LINES
)
_RESNETS = _for(
    "`deeplab_tf/arch/resnet_v1.py`, `deeplab_tf/network/classifier.py`", _GOLDENS, "tests/test_classifier.py"
)
_XCEPTION = _for("`deeplab_tf/arch/xception.py`, `deeplab_tf/network/backbone.py`", _GOLDENS, "tests/test_backbone.py")
_STANDARDISED = _for(
    "`deeplab_tf/network/normalisation.py`: `--use_weight_standardization`", "tests/test_normalisation.py"
)
_CELL = _for("`deeplab_tf/arch/dense_prediction_cell.py`, `deeplab_tf/network/head.py`", _GOLDENS, "tests/test_head.py")
_NAS = _for("`deeplab_tf/arch/nas.py`, `deeplab_tf/network/backbone.py`", _GOLDENS, "tests/test_architectures.py")
_PREPROCESSING = _for("`deeplab_tf/data/transforms.py`, `deeplab_tf/data/augment.py`", "tests/test_transforms.py")
_SIZES = _for(
    "`deeplab_tf/ops/resizing.py`, `deeplab_tf/ops/class_weights.py`", "tests/test_resizing.py", "tests/test_losses.py"
)
_READER = _for("`deeplab_tf/data/pipeline.py`, `deeplab_tf/data/examples.py`", "tests/test_pipeline.py")
_COLOURS = _for("`deeplab_tf/catalog/palettes.py`, `deeplab_tf/ops/pictures.py`", "tests/test_visualize.py")
_QUALITY = _for("`deeplab_tf/ops/panoptic.py`: `PanopticQuality`", _PANOPTIC)
_COVERING = _for("`deeplab_tf/ops/panoptic.py`: `ParsingCovering`", _PANOPTIC)
_STREAMED = _for("`deeplab_tf/ops/panoptic.py`: metrics add up image by image, and `merge` adds metrics", _PANOPTIC)
_COCO = _for("`deeplab-tf panoptic`, `deeplab_tf/evaluation/panoptic.py`", _PANOPTIC)
_EXAMPLES = _for("the published numbers, on pictures with the areas that these imply", _PANOPTIC)
_SMOKE = _for(
    "`deeplab-tf demo --what=voc_smoke` and `--what=voc_smoke_mobilenetv2`: every command once; the score that the "
    "scripts expect: `deeplab-tf verify xception65_coco_voc_trainaug --dataset_dir=voc_records`",
    "tests/test_demo.py",
)
_MODEL = _for("`deeplab_tf.build_model`, `deeplab_tf/network/model.py`", _GOLDENS, "tests/test_network.py")
_PICTURES = _for(
    "`docs/images/demo_sheet.png`, which `deeplab-tf demo` makes", "tests/test_readme.py", "tests/test_demo.py"
)

FILES: Mapping[str, Counterpart] = {
    "README.md": _for("`README.md`", "tests/test_readme.py"),
    "__init__.py": _PACKAGE,
    "common.py": _OPTIONS,
    "common_test.py": _OPTIONS,
    "convert_to_tflite.py": _for("`deeplab-tf convert-to-tflite`", "tests/test_convert_to_tflite.py"),
    "deeplab_demo.ipynb": _for(
        "`deeplab-tf predict`, `deeplab-tf serve` and its page, `deeplab_tf.Segmenter`",
        "tests/test_predict.py",
        "tests/test_segmenter.py",
    ),
    "eval.py": _for("`deeplab-tf eval`", "tests/test_eval_tools.py", _LINES),
    "export_model.py": _for("`deeplab-tf export`", "tests/test_export.py", _LINES),
    "input_preprocess.py": _PREPROCESSING,
    "local_test.sh": _SMOKE,
    "local_test_mobilenetv2.sh": _SMOKE,
    "model.py": _MODEL,
    "model_test.py": _MODEL,
    "train.py": _for("`deeplab-tf train`", "tests/test_train_goldens.py", _LINES),
    "vis.py": _for("`deeplab-tf vis`", "tests/test_eval_tools.py", _LINES),
    "core/__init__.py": _PACKAGE,
    "core/conv2d_ws.py": _STANDARDISED,
    "core/conv2d_ws_test.py": _STANDARDISED,
    "core/dense_prediction_cell.py": _CELL,
    "core/dense_prediction_cell_branch5_top1_cityscapes.json": _CELL,
    "core/dense_prediction_cell_test.py": _CELL,
    "core/feature_extractor.py": _for(
        "`deeplab_tf/arch/__init__.py`, `deeplab_tf/arch/spec.py`", "tests/test_architectures.py"
    ),
    "core/nas_cell.py": _NAS,
    "core/nas_genotypes.py": _NAS,
    "core/nas_network.py": _NAS,
    "core/nas_network_test.py": _NAS,
    "core/preprocess_utils.py": _PREPROCESSING,
    "core/preprocess_utils_test.py": _PREPROCESSING,
    "core/resnet_v1_beta.py": _RESNETS,
    "core/resnet_v1_beta_test.py": _RESNETS,
    "core/utils.py": _SIZES,
    "core/utils_test.py": _SIZES,
    "core/xception.py": _XCEPTION,
    "core/xception_test.py": _XCEPTION,
    "datasets/__init__.py": _PACKAGE,
    "datasets/build_ade20k_data.py": _for("`deeplab-tf build-data --dataset=ade20k`", "tests/test_build_data.py"),
    "datasets/build_cityscapes_data.py": _for(
        "`deeplab-tf build-data --dataset=cityscapes`", "tests/test_build_data.py"
    ),
    "datasets/build_data.py": _for("`deeplab_tf/data/records.py`, `deeplab_tf/data/build.py`", "tests/test_records.py"),
    "datasets/build_voc2012_data.py": _for(
        "`deeplab-tf build-data --dataset=pascal_voc_seg`", "tests/test_build_data.py"
    ),
    "datasets/convert_cityscapes.sh": _for(
        "`deeplab-tf build-data --dataset=cityscapes`, which translates `labelIds` itself", "tests/test_build_data.py"
    ),
    "datasets/data_generator.py": _READER,
    "datasets/data_generator_test.py": _READER,
    "datasets/download_and_convert_ade20k.sh": _for(
        "`deeplab-tf build-data --dataset=ade20k --download`", "tests/test_data_downloads.py"
    ),
    "datasets/download_and_convert_voc2012.sh": _for(
        "`deeplab-tf build-data --dataset=pascal_voc_seg --download`", "tests/test_data_downloads.py"
    ),
    "datasets/remove_gt_colormap.py": _for(
        "`deeplab-tf build-data`, which reads palette PNGs as indices", "tests/test_build_data.py"
    ),
    "deprecated/__init__.py": _PACKAGE,
    "deprecated/segmentation_dataset.py": _for("`deeplab_tf/catalog/datasets.py`", "tests/test_catalog.py"),
    "evaluation/README.md": _for("`docs/how-to/evaluate.md`", _PAGES),
    "evaluation/__init__.py": _PACKAGE,
    "evaluation/base_metric.py": _for("`deeplab_tf/ops/panoptic.py`: `SegmentMetric`", _PANOPTIC),
    "evaluation/eval_coco_format.py": _COCO,
    "evaluation/eval_coco_format_test.py": _COCO,
    "evaluation/panoptic_quality.py": _QUALITY,
    "evaluation/panoptic_quality_test.py": _QUALITY,
    "evaluation/parsing_covering.py": _COVERING,
    "evaluation/parsing_covering_test.py": _COVERING,
    "evaluation/streaming_metrics.py": _STREAMED,
    "evaluation/streaming_metrics_test.py": _STREAMED,
    "evaluation/test_utils.py": _EXAMPLES,
    "evaluation/test_utils_test.py": _EXAMPLES,
    "evaluation/g3doc/img/equation_pc.png": _for("`docs/how-to/evaluate.md`", _PAGES),
    "evaluation/g3doc/img/equation_pq.png": _for("`docs/how-to/evaluate.md`", _PAGES),
    **{
        f"evaluation/testdata/{name}": _EXAMPLES
        for name in (
            "README.md",
            *(f"{animal}_{part}.png" for animal in ("bird", "cat") for part in ("gt", "pred_class", "pred_instance")),
            *(f"team_{part}.png" for part in ("gt_instance", "pred_class", "pred_instance")),
            *("coco_gt.json", "coco_pred.json"),
            *(f"coco_{part}/{n}.png" for part in ("gt", "pred") for n in ("bird", "cat", "congress", "team")),
        )
    },
    "g3doc/ade20k.md": _for("[ADE20K](../tutorials/ade20k.md)", _PAGES),
    "g3doc/cityscapes.md": _for("[Cityscapes](../tutorials/cityscapes.md)", _PAGES),
    "g3doc/export_model.md": _for("[Export](../how-to/export.md)", _PAGES),
    "g3doc/faq.md": _for("[Questions](../faq.md)", _PAGES),
    "g3doc/installation.md": _for("`README.md`", "tests/test_packaging.py"),
    "g3doc/model_zoo.md": _for("`deeplab-tf zoo`, [Zoo](../reference/zoo.md)", "tests/test_zoo.py"),
    "g3doc/pascal.md": _for("[PASCAL VOC](../tutorials/voc.md)", _PAGES),
    "g3doc/quantize.md": _for(
        "[Export](../how-to/export.md)", "tests/test_fake_quantization.py", "tests/test_convert_to_tflite.py"
    ),
    **dict.fromkeys(
        (
            f"g3doc/img/{n}"
            for n in ("image1.jpg", "image2.jpg", "image3.jpg", "image_info.txt", "vis1.png", "vis2.png", "vis3.png")
        ),
        _PICTURES,
    ),
    "testing/info.md": _for("`tests/record_files.py`: records that tests write", "tests/test_records.py"),
    "testing/pascal_voc_seg/val-00000-of-00001.tfrecord": _for(
        "`tests/record_files.py`: records that tests write", "tests/test_records.py"
    ),
    "utils/__init__.py": _PACKAGE,
    "utils/get_dataset_colormap.py": _COLOURS,
    "utils/get_dataset_colormap_test.py": _COLOURS,
    "utils/save_annotation.py": _COLOURS,
    "utils/train_utils.py": _for(
        "`deeplab_tf/training/losses.py`, `deeplab_tf/training/schedules.py`, `deeplab_tf/weights/initialize.py`",
        "tests/test_losses.py",
        "tests/test_schedules.py",
    ),
}


def table() -> str:
    """Returns the table of all files as Markdown."""
    lines = ["| of the release | here | tested by |\n", "| --- | --- | --- |\n"]
    for file, counterpart in FILES.items():
        tests = ", ".join(f"`{test}`" for test in counterpart.tests)
        lines.append(f"| `{file}` | {counterpart.here} | {tests} |\n")
    return "".join(lines)


def write(page: pathlib.Path) -> None:
    """Writes the table between its markers in the page."""
    before, rest = page.read_text(encoding="utf-8").split("<!-- files -->\n")
    page.write_text(
        f"{before}<!-- files -->\n{table()}<!-- /files -->{rest.partition('<!-- /files -->')[2]}", encoding="utf-8"
    )
