"""Every file of research/deeplab has its counterpart in the table, and what a row names exists."""

import re
import sys

import pages
import pytest

import deeplab_tf
from deeplab_tf.tools import cli

sys.path.insert(0, str(pages.ROOT / "docs" / "hooks"))
import release_files

PAGE = pages.ROOT / "docs" / "coming-from" / "release_files.md"
# The names of tensorflow/models' research/deeplab in its last state, by folder.
RELEASE = {
    "": "README.md __init__.py common.py common_test.py convert_to_tflite.py deeplab_demo.ipynb eval.py "
    "export_model.py input_preprocess.py local_test.sh local_test_mobilenetv2.sh model.py model_test.py train.py "
    "vis.py",
    "core/": "__init__.py conv2d_ws.py conv2d_ws_test.py dense_prediction_cell.py dense_prediction_cell_test.py "
    "dense_prediction_cell_branch5_top1_cityscapes.json feature_extractor.py nas_cell.py nas_genotypes.py "
    "nas_network.py nas_network_test.py preprocess_utils.py preprocess_utils_test.py resnet_v1_beta.py "
    "resnet_v1_beta_test.py utils.py utils_test.py xception.py xception_test.py",
    "datasets/": "__init__.py build_ade20k_data.py build_cityscapes_data.py build_data.py build_voc2012_data.py "
    "convert_cityscapes.sh data_generator.py data_generator_test.py download_and_convert_ade20k.sh "
    "download_and_convert_voc2012.sh remove_gt_colormap.py",
    "deprecated/": "__init__.py segmentation_dataset.py",
    "evaluation/": "README.md __init__.py base_metric.py eval_coco_format.py eval_coco_format_test.py "
    "panoptic_quality.py panoptic_quality_test.py parsing_covering.py parsing_covering_test.py streaming_metrics.py "
    "streaming_metrics_test.py test_utils.py test_utils_test.py",
    "evaluation/g3doc/img/": "equation_pc.png equation_pq.png",
    "evaluation/testdata/": "README.md bird_gt.png bird_pred_class.png bird_pred_instance.png cat_gt.png "
    "cat_pred_class.png cat_pred_instance.png team_gt_instance.png team_pred_class.png team_pred_instance.png "
    "coco_gt.json coco_pred.json",
    "evaluation/testdata/coco_gt/": "bird.png cat.png congress.png team.png",
    "evaluation/testdata/coco_pred/": "bird.png cat.png congress.png team.png",
    "g3doc/": "ade20k.md cityscapes.md export_model.md faq.md installation.md model_zoo.md pascal.md quantize.md",
    "g3doc/img/": "image1.jpg image2.jpg image3.jpg image_info.txt vis1.png vis2.png vis3.png",
    "testing/": "info.md",
    "testing/pascal_voc_seg/": "val-00000-of-00001.tfrecord",
    "utils/": "__init__.py get_dataset_colormap.py get_dataset_colormap_test.py save_annotation.py train_utils.py",
}


def test_no_file_is_left_out():
    assert set(release_files.FILES) == {
        f"{folder}{name}" for folder, names in RELEASE.items() for name in names.split()
    }


def test_the_page_has_the_table():
    assert pages.between(PAGE, "files") == release_files.table(), "python docs/hooks/release_flags.py writes it anew"
    assert all(cell.strip() for line in release_files.table().splitlines() for cell in line.strip("|").split("|"))


@pytest.mark.parametrize("file", release_files.FILES)
def test_what_a_row_names_exists(file):
    row = release_files.FILES[file]
    assert row.here and row.tests
    assert all((pages.ROOT / test).is_file() for test in row.tests)
    for code in re.findall(r"`([^`]*)`", row.here):
        command = re.match(r"deeplab-tf ([\w-]+)", code)
        if command:
            assert command[1] in cli.COMMANDS
        elif re.fullmatch(r"(?:deeplab_tf|tests|docs)/[\w/]+\.\w+|[A-Z]+\.md", code):
            assert (pages.ROOT / code).is_file()
        elif code.startswith("deeplab_tf."):
            assert hasattr(deeplab_tf, code.removeprefix("deeplab_tf."))
        else:  # a class or a flag of the file that is named beside it
            place = re.search(r"`(deeplab_tf/[\w/]+\.py)`", row.here)
            assert (
                code.startswith("--")
                or code == "labelIds"
                or not place
                or code in _text(place[1])
                or code in ("merge", "import deeplab_tf")
            )


def _text(file: str) -> str:
    return (pages.ROOT / file).read_text(encoding="utf-8")
