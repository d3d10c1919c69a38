"""The scripts of research/deeplab and their flags, and what became of each.

`python docs/hooks/release_flags.py` writes the tables of the page anew; a test compares them with what commands define.
"""

import dataclasses
import importlib
import pathlib
import re
from collections.abc import Mapping

import release_files
from absl import flags

from deeplab_tf.tools import cli, retired

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coming-from" / "research_deeplab.md"


@dataclasses.dataclass(frozen=True)
class Script:
    """A script of the release.

    Attributes:
      command: the command that has taken its place.
      flags: flag -> the release's default, as its command line shows it; empty: none, or required.
      mapped: flag -> what it is here, where it is not the same flag with the same default.
      retired: flag -> why it has no effect.
    """

    command: str
    flags: Mapping[str, str]
    mapped: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    retired: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


def _reasons(table: Mapping[str, tuple[object, str]]) -> dict[str, str]:
    return {name: reason for name, (_, reason) in table.items()}


_NETWORK = {
    "logits_kernel_size": "1",
    "model_variant": "mobilenet_v2",
    "image_pyramid": "",
    "add_image_level_feature": "True",
    "image_pooling_crop_size": "",
    "image_pooling_stride": "1,1",
    "aspp_with_batch_norm": "True",
    "aspp_with_separable_conv": "True",
    "multi_grid": "",
    "depth_multiplier": "1.0",
    "divisible_by": "",
    "decoder_output_stride": "",
    "decoder_use_separable_conv": "True",
    "merge_method": "max",
    "prediction_with_upsampled_logits": "True",
    "dense_prediction_cell_json": "",
    "nas_stem_output_num_conv_filters": "20",
    "nas_use_classification_head": "False",
    "nas_remove_os32_stride": "False",
    "use_bounded_activation": "False",
    "aspp_with_concat_projection": "True",
    "aspp_with_squeeze_and_excitation": "False",
    "aspp_convs_filters": "256",
    "decoder_use_sum_merge": "False",
    "decoder_filters": "256",
    "decoder_output_is_logits": "False",
    "image_se_uses_qsigmoid": "False",
    "atrous_rates": "",
    "output_stride": "16",
    "quantize_delay_step": "-1",
    "min_resize_value": "",
    "max_resize_value": "",
    "resize_factor": "",
}
_ASKED = {"keep_aspect_ratio": "True", "batch_norm_decay": "0.9997", "label_weights": ""}
_DATA = {"dataset": "pascal_voc_seg", "dataset_dir": ""}
_TRAIN = {
    "num_clones": "1",
    "clone_on_cpu": "False",
    "num_replicas": "1",
    "startup_delay_steps": "15",
    "num_ps_tasks": "0",
    "master": "",
    "task": "0",
    "train_logdir": "",
    "log_steps": "10",
    "save_interval_secs": "1200",
    "save_summaries_secs": "600",
    "save_summaries_images": "False",
    "profile_logdir": "",
    "optimizer": "momentum",
    "learning_policy": "poly",
    "base_learning_rate": "0.0001",
    "decay_steps": "0.0",
    "end_learning_rate": "0.0",
    "learning_rate_decay_factor": "0.1",
    "learning_rate_decay_step": "2000",
    "learning_power": "0.9",
    "training_number_of_steps": "30000",
    "momentum": "0.9",
    "adam_learning_rate": "0.001",
    "adam_epsilon": "1e-08",
    "train_batch_size": "8",
    "weight_decay": "4e-05",
    "train_crop_size": "513,513",
    "last_layer_gradient_multiplier": "1.0",
    "upsample_logits": "True",
    "drop_path_keep_prob": "1.0",
    "tf_initial_checkpoint": "",
    "initialize_last_layer": "True",
    "last_layers_contain_logits_only": "False",
    "slow_start_step": "0",
    "slow_start_learning_rate": "0.0001",
    "fine_tune_batch_norm": "True",
    "min_scale_factor": "0.5",
    "max_scale_factor": "2.0",
    "scale_factor_step_size": "0.25",
    "hard_example_mining_step": "0",
    "top_k_percent_pixels": "1.0",
    "train_split": "train",
}
_PASS = {
    "master": "",
    "checkpoint_dir": "",
    "eval_interval_secs": "300",
    "eval_scales": "1.0",
    "add_flipped_images": "False",
}
_OF_DATA = {"dataset": "what the `dataset.json` beside the records says; without one pascal_voc_seg, as before"}
_FLIPS = {"add_flipped_images": "counts at the single scale 1 too, where the release ignored it in silence"}
_QUANTISED = {"quantize_delay_step": "the same; kernels are rounded in each output channel, ranges follow the batches"}
SCRIPTS = {
    "train.py": Script(
        "train",
        {**_NETWORK, **_ASKED, **_TRAIN, **_DATA},
        {
            **_OF_DATA,
            **_QUANTISED,
            "num_clones": "the same: the batch is divided among so many GPUs; without it `--strategy=auto` takes all",
            "clone_on_cpu": "the same, for `--num_clones`",
        },
        _reasons(retired.TRAIN),
    ),
    "eval.py": Script(
        "eval",
        {
            **_NETWORK,
            **_ASKED,
            **_PASS,
            "eval_logdir": "",
            "eval_batch_size": "1",
            "eval_crop_size": "513,513",
            "eval_split": "val",
            "max_number_of_evaluations": "0",
            **_DATA,
        },
        {**_OF_DATA, **_FLIPS, "eval_crop_size": "the same, or empty: the size of each image"},
        _reasons(retired.PASSES),
    ),
    "vis.py": Script(
        "vis",
        {
            **_NETWORK,
            **_ASKED,
            **_PASS,
            "vis_logdir": "",
            "vis_batch_size": "1",
            "vis_crop_size": "513,513",
            "vis_split": "val",
            "max_number_of_iterations": "0",
            "colormap_type": "pascal",
            "also_save_raw_predictions": "False",
            **_DATA,
        },
        {**_OF_DATA, **_FLIPS, "vis_crop_size": "the same, or empty: the size of each image"},
        _reasons(retired.PASSES),
    ),
    "export_model.py": Script(
        "export",
        {
            **_NETWORK,
            **_ASKED,
            "checkpoint_path": "",
            "export_path": "",
            "num_classes": "21",
            "crop_size": "513,513",
            "output_stride": "8",
            "inference_scales": "1.0",
            "add_flipped_images": "False",
            "save_inference_graph": "False",
        },
        {
            "output_stride": "default: that of the model directory; of a bare checkpoint 8, as before",
            "num_classes": "read from the weights",
            "crop_size": "default: any size, where format and network can; else 513,513",
            "export_path": "its ending chooses the format: `.pb`, `.tflite`, `.onnx`, `.xml`, or a folder for a "
            "SavedModel",
        },
        _reasons(retired.EXPORT),
    ),
    "convert_to_tflite.py": Script(
        "convert-to-tflite",
        {
            "quantized_graph_def_path": "",
            "input_tensor_name": "",
            "output_tensor_name": "ArgMax:0",
            "output_tflite_path": "",
            "test_image_path": "",
        },
        {
            "quantized_graph_def_path": "the same, or a model directory; graphs of the release, whose ranges are not "
            "read, need `--representative_images`",
            "test_image_path": "the same, or several: what the certificate compares",
        },
        _reasons(retired.TFLITE),
    ),
    "evaluation/eval_coco_format.py": Script(
        "panoptic",
        {
            "gt_json_file": "",
            "gt_folder": "",
            "pred_json_file": "",
            "pred_folder": "",
            "metric": "pq",
            "num_categories": "201",
            "ignored_label": "0",
            "max_instances_per_category": "256",
            "intersection_offset": "",
            "normalize_by_image_size": "True",
            "num_workers": "0",
            "print_digits": "3",
        },
    ),
    "datasets/build_voc2012_data.py": Script(
        "build-data",
        {
            "image_folder": "./VOCdevkit/VOC2012/JPEGImages",
            "semantic_segmentation_folder": "./VOCdevkit/VOC2012/SegmentationClassRaw",
            "list_folder": "./VOCdevkit/VOC2012/ImageSets/Segmentation",
            "output_dir": "./tfrecord",
            "image_format": "png",
            "label_format": "png",
        },
        {
            "image_folder": "the same, or `--voc_root` for all three folders",
            "semantic_segmentation_folder": "the same; palette PNGs (SegmentationClass) too",
            "list_folder": "the same; `--sbd_dir` adds the list of train_aug",
            "image_format": "default: jpg, which the release's script gave",
        },
    ),
    "datasets/build_ade20k_data.py": Script(
        "build-data",
        {
            "train_image_folder": "./ADE20K/ADEChallengeData2016/images/training",
            "train_image_label_folder": "./ADE20K/ADEChallengeData2016/annotations/training",
            "val_image_folder": "./ADE20K/ADEChallengeData2016/images/validation",
            "val_image_label_folder": "./ADE20K/ADEChallengeData2016/annotations/validation",
            "output_dir": "./ADE20K/tfrecord",
        },
        {
            "output_dir": "default: ./tfrecord",
            "train_image_folder": "the same, or `--ade20k_root` for all four folders",
        },
    ),
    "datasets/build_cityscapes_data.py": Script(
        "build-data",
        {"cityscapes_root": "./cityscapes", "output_dir": "./tfrecord"},
        {"cityscapes_root": "the same; `labelIds` are translated where `labelTrainIds` are missing"},
    ),
    "datasets/remove_gt_colormap.py": Script(
        "build-data",
        {
            "original_gt_folder": "./VOCdevkit/VOC2012/SegmentationClass",
            "segmentation_format": "png",
            "output_dir": "./VOCdevkit/VOC2012/SegmentationClassRaw",
        },
        dict.fromkeys(
            ("original_gt_folder", "segmentation_format", "output_dir"),
            "not needed: palette PNGs are read as indices",
        ),
    ),
}


def defined(command: str) -> flags.FlagValues:
    """Returns the flags that a command defines."""
    values = flags.FlagValues()
    importlib.import_module(f"deeplab_tf.tools.{cli.file_of(command)}").define(values)
    return values


def row(script: Script, flag: str, here: flags.FlagValues) -> tuple[str, str, str, str]:
    """Returns flag, the release's default, same, mapped or retired, and what is to be known."""
    default = script.flags[flag] or "-"
    if flag in script.retired:
        return flag, default, "retired", script.retired[flag]
    if flag in script.mapped:
        return flag, default, "mapped", script.mapped[flag]
    if flag not in here:
        raise ValueError(f"{script.command} has no --{flag}, and nothing says what became of it")
    return flag, default, "same", ""


def table(name: str) -> str:
    """Returns the table of a script as Markdown."""
    script = SCRIPTS[name]
    here = defined(script.command)
    rows = [row(script, flag, here) for flag in sorted(script.flags)]
    lines = [f"| `--{flag}` | {default} | {state} | {note} |\n" for flag, default, state, note in rows]
    return "".join(["| flag | its default | here | |\n", "| --- | --- | --- | --- |\n", *lines])


def released(command: str) -> set[str]:
    """Returns the flags of a command that a script of the release has too, those of absl's logging included."""
    found = {flag for script in SCRIPTS.values() if script.command == command for flag in script.flags}
    return found | {"logtostderr", "alsologtostderr"}


def main() -> None:
    """Writes the tables between their markers in the pages."""
    text = PAGE.read_text(encoding="utf-8")
    for name in SCRIPTS:
        marked = re.compile(rf"(<!-- {re.escape(name)} -->\n).*(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text = marked.sub(lambda match, name=name: f"{match[1]}{table(name)}{match[2]}", text)
    PAGE.write_text(text, encoding="utf-8")
    release_files.write(PAGE.with_name("release_files.md"))


if __name__ == "__main__":
    main()
