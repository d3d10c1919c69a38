"""The release's command lines run unchanged: those of its documentation, and every flag of train, eval and vis."""

import shlex

import pytest
from absl import flags

from deeplab_tf.arch import dense_prediction_cell
from deeplab_tf.config import DataConfig, EvalConfig, ModelConfig, RunConfig, TrainConfig, VisConfig
from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import export_model, options, passes, retired, train, vis

TOOLS = {"train": train, "eval": eval_tool, "vis": vis}
REQUIRED = {
    "train": "--train_logdir=log --dataset_dir=data",
    "eval": "--eval_logdir=log --checkpoint_dir=weights --dataset_dir=data",
    "vis": "--vis_logdir=log --checkpoint_dir=weights --dataset_dir=data",
}


def parsed(command: str, line: str) -> flags.FlagValues:
    """The flags of a command line, parsed as the command does it; nothing may be left over."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    TOOLS[command].define(values)
    assert values(["tool", *shlex.split(line)]) == ["tool"]
    return values


def by_flag(config, names) -> dict:
    return {flag: getattr(config, field) for field, flag in options.flags_of(type(config), names).items()}


def configured(command: str, line: str) -> dict:
    """What the command would work with: flag -> value, over all its configurations."""
    if command == "train":
        found = train.experiment(parsed(command, line))
        parts = (found.run, found.model, found.train, found.data, found.evaluation_of_run)
        assert [type(config) for config in parts] == [RunConfig, ModelConfig, TrainConfig, DataConfig, EvalConfig]
        pairs = [(config, train._NAMES[type(config)]) for config in parts]
        assert found.data.model_variant == found.model.model_variant
        assert found.model.crop_size == found.data.crop_size
    else:
        config, data, model = TOOLS[command].configurations(parsed(command, line))
        assert type(config) is {"eval": EvalConfig, "vis": VisConfig}[command]
        pairs = [(config, TOOLS[command]._NAMES), (DataConfig(**data), passes.OF_DATA)]
        classes = find_dataset(data.get("dataset")).num_classes
        pairs += [(ModelConfig(**model, num_classes=classes), passes.OF_MODEL)]
    return {flag: value for config, names in pairs for flag, value in by_flag(config, names).items()}


def notes(command: str, line: str) -> list[str]:
    values = parsed(command, line)
    if command == "train":
        return options.retired_notes(values, retired.TRAIN)
    return passes.notes(values, TOOLS[command].configurations(values)[0])


# ---- the documentation's command lines

X65 = "--model_variant=xception_65 --atrous_rates=6 --atrous_rates=12 --atrous_rates=18 --output_stride=16"
X65 += " --decoder_output_stride=4"
X65_MEANS = {
    "model_variant": "xception_65",
    "atrous_rates": (6, 12, 18),
    "output_stride": 16,
    "decoder_output_stride": (4,),
}
DPC = "--model_variant=xception_71 --decoder_output_stride=4"
DPC += " --dense_prediction_cell_json=deeplab/core/dense_prediction_cell_branch5_top1_cityscapes.json"
DPC_MEANS = {
    "model_variant": "xception_71",
    "decoder_output_stride": (4,),
    "dense_prediction_cell_json": dense_prediction_cell.CITYSCAPES_TOP1,
    "output_stride": 16,
}
V3 = "--model_variant=mobilenet_v3_large_seg --image_pooling_crop_size=769,769 --image_pooling_stride=4,5"
V3 += " --add_image_level_feature=1 --aspp_convs_filters=128 --aspp_with_concat_projection=0 --decoder_filters=19"
V3 += " --aspp_with_squeeze_and_excitation=1 --decoder_use_sum_merge=1 --decoder_output_is_logits=1"
V3 += " --image_se_uses_qsigmoid=1 --decoder_output_stride=8 --output_stride=32"
V3_MEANS = {
    "model_variant": "mobilenet_v3_large_seg",
    "image_pooling_crop_size": (769, 769),
    "image_pooling_stride": (4, 5),
    "add_image_level_feature": True,
    "aspp_convs_filters": 128,
    "aspp_with_concat_projection": False,
    "aspp_with_squeeze_and_excitation": True,
    "decoder_use_sum_merge": True,
    "decoder_filters": 19,
    "decoder_output_is_logits": True,
    "image_se_uses_qsigmoid": True,
    "decoder_output_stride": (8,),
    "output_stride": 32,
}

# (command, its flags without the folders, what they mean)
DOCUMENTED = {
    "pascal train": (
        "train",
        f"--logtostderr --training_number_of_steps=30000 --train_split=train {X65} --train_crop_size='513,513' "
        "--train_batch_size=1 --dataset=pascal_voc_seg --tf_initial_checkpoint=init/model.ckpt",
        {
            **X65_MEANS,
            "training_number_of_steps": 30000,
            "train_split": "train",
            "train_crop_size": (513, 513),
            "train_batch_size": 1,
            "dataset": "pascal_voc_seg",
            "tf_initial_checkpoint": "init/model.ckpt",
            "fine_tune_batch_norm": True,
            "base_learning_rate": 0.0001,
        },
    ),
    "pascal train of 2018": (  # the crop was a repeated flag then
        "train",
        f"--training_number_of_steps=30000 --train_split=train {X65} --train_crop_size=513 --train_crop_size=769",
        {**X65_MEANS, "train_crop_size": (513, 769)},
    ),
    "pascal eval": (
        "eval",
        f"--logtostderr --eval_split=val {X65} --eval_crop_size='513,513' --dataset=pascal_voc_seg",
        {**X65_MEANS, "eval_split": "val", "eval_crop_size": (513, 513), "eval_batch_size": 1, "eval_scales": (1.0,)},
    ),
    "pascal eval of 2018": (
        "eval",
        f"--eval_split=val {X65} --eval_crop_size=513 --eval_crop_size=769",
        {"eval_crop_size": (513, 769)},
    ),
    "pascal vis": (
        "vis",
        f"--logtostderr --vis_split=val {X65} --vis_crop_size='513,513' --dataset=pascal_voc_seg",
        {**X65_MEANS, "vis_split": "val", "vis_crop_size": (513, 513), "colormap_type": "pascal"},
    ),
    "published multi-scale score": (
        "eval",
        f"{X65.replace('16', '8')} --eval_scales=0.5 --eval_scales=0.75 --eval_scales=1.0 --eval_scales=1.25 "
        "--eval_scales=1.5 --eval_scales=1.75 --add_flipped_images=true --max_number_of_evaluations=1",
        {
            "eval_scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
            "add_flipped_images": True,
            "output_stride": 8,
            "max_number_of_evaluations": 1,
        },
    ),
    "cityscapes train": (
        "train",
        f"--logtostderr --training_number_of_steps=90000 --train_split=train_fine {X65} --train_crop_size='769,769' "
        "--train_batch_size=1 --dataset=cityscapes --tf_initial_checkpoint=init/model.ckpt",
        {
            **X65_MEANS,
            "training_number_of_steps": 90000,
            "train_split": "train_fine",
            "train_crop_size": (769, 769),
            "dataset": "cityscapes",
        },
    ),
    "cityscapes train with a cell": (
        "train",
        f"--training_number_of_steps=90000 --train_split=train_fine {DPC} --train_crop_size='769,769' "
        "--train_batch_size=1 --dataset=cityscapes",
        {**DPC_MEANS, "train_crop_size": (769, 769)},
    ),
    "cityscapes train, MobileNetV3": (
        "train",
        f"--train_split=train_fine {V3} --train_crop_size='769,769' --dataset=cityscapes",
        {**V3_MEANS, "dataset": "cityscapes"},
    ),
    "cityscapes eval": (
        "eval",
        f"--logtostderr --eval_split=val_fine {X65} --eval_crop_size='1025,2049' --dataset=cityscapes",
        {**X65_MEANS, "eval_split": "val_fine", "eval_crop_size": (1025, 2049), "dataset": "cityscapes"},
    ),
    "cityscapes eval with a cell": (
        "eval",
        f"--eval_split=val_fine {DPC} --eval_crop_size='1025,2049' --dataset=cityscapes",
        {**DPC_MEANS, "eval_crop_size": (1025, 2049)},
    ),
    "cityscapes eval, MobileNetV3": (
        "eval",
        f"--eval_split=val_fine {V3} --eval_crop_size='1025,2049' --dataset=cityscapes",
        {**V3_MEANS, "eval_crop_size": (1025, 2049)},
    ),
    "cityscapes eval, EdgeTPU slim": (
        "eval",
        "--eval_split=val_fine --model_variant=mobilenet_edgetpu --depth_multiplier=0.75 --decoder_output_stride='' "
        "--aspp_convs_filters=128 --output_stride=32 --eval_crop_size='1025,2049' --dataset=cityscapes",
        {
            "model_variant": "mobilenet_edgetpu",
            "depth_multiplier": 0.75,
            "decoder_output_stride": None,
            "aspp_convs_filters": 128,
            "output_stride": 32,
        },
    ),
    "cityscapes vis": (
        "vis",
        f"--logtostderr --vis_split=val_fine {X65} --vis_crop_size='1025,2049' --dataset=cityscapes "
        "--colormap_type=cityscapes --also_save_raw_predictions",
        {
            **X65_MEANS,
            "vis_split": "val_fine",
            "vis_crop_size": (1025, 2049),
            "colormap_type": "cityscapes",
            "also_save_raw_predictions": True,
        },
    ),
    "ade20k train": (
        "train",
        f"--logtostderr --training_number_of_steps=150000 --train_split=train {X65} --train_crop_size='513,513' "
        "--train_batch_size=4 --min_resize_value=513 --max_resize_value=513 --resize_factor=16 --dataset=ade20k "
        "--tf_initial_checkpoint=init/model.ckpt",
        {
            **X65_MEANS,
            "training_number_of_steps": 150000,
            "train_batch_size": 4,
            "min_resize_value": 513,
            "max_resize_value": 513,
            "resize_factor": 16,
            "dataset": "ade20k",
        },
    ),
    "ade20k eval": (
        "eval",
        f"--eval_split=val {X65} --eval_crop_size='513,513' --min_resize_value=513 --max_resize_value=513 "
        "--resize_factor=16 --dataset=ade20k",
        {"min_resize_value": 513, "max_resize_value": 513, "resize_factor": 16, "dataset": "ade20k"},
    ),
    "ade20k vis": (
        "vis",
        f"--vis_split=val {X65} --vis_crop_size='513,513' --min_resize_value=513 --max_resize_value=513 "
        "--resize_factor=16 --dataset=ade20k --colormap_type=ade20k",
        {"min_resize_value": 513, "colormap_type": "ade20k", "dataset": "ade20k"},
    ),
    "quantised eval before quantising": (
        "eval",
        "--model_variant=mobilenet_v2 --output_stride=16 --quantize_delay_step=-1 --eval_crop_size=513,513",
        {"model_variant": "mobilenet_v2", "output_stride": 16, "quantize_delay_step": -1},
    ),
    "quantised train": (  # g3doc/quantize.md
        "train",
        "--train_split=train --model_variant=mobilenet_v2 --output_stride=16 --train_crop_size='513,513' "
        "--train_batch_size=8 --base_learning_rate=3e-5 --training_number_of_steps=3000 --quantize_delay_step=0 "
        "--dataset=pascal_voc_seg --tf_initial_checkpoint=init/model.ckpt",
        {
            "quantize_delay_step": 0,
            "base_learning_rate": 3e-5,
            "training_number_of_steps": 3000,
            "train_batch_size": 8,
            "tf_initial_checkpoint": "init/model.ckpt",
        },
    ),
    "quantised eval": (
        "eval",
        "--model_variant=mobilenet_v2 --output_stride=16 --quantize_delay_step=0 --eval_crop_size=513,513",
        {"model_variant": "mobilenet_v2", "quantize_delay_step": 0},
    ),
    "quantised vis": (
        "vis",
        "--model_variant=mobilenet_v2 --output_stride=16 --quantize_delay_step=0 --vis_crop_size=513,513",
        {"model_variant": "mobilenet_v2", "quantize_delay_step": 0},
    ),
    "local_test.sh train": (
        "train",
        f"--logtostderr --train_split=trainval {X65} --train_crop_size='513,513' --train_batch_size=4 "
        "--training_number_of_steps=10 --fine_tune_batch_norm=true "
        "--tf_initial_checkpoint=init_models/deeplabv3_pascal_train_aug/model.ckpt",
        {
            **X65_MEANS,
            "train_split": "trainval",
            "train_batch_size": 4,
            "training_number_of_steps": 10,
            "fine_tune_batch_norm": True,
            "tf_initial_checkpoint": "init_models/deeplabv3_pascal_train_aug/model.ckpt",
        },
    ),
    "local_test.sh eval": (
        "eval",
        f"--logtostderr --eval_split=val {X65} --eval_crop_size='513,513' --max_number_of_evaluations=1",
        {**X65_MEANS, "max_number_of_evaluations": 1, "eval_interval_secs": 300},
    ),
    "local_test.sh vis": (
        "vis",
        f"--logtostderr --vis_split=val {X65} --vis_crop_size='513,513' --max_number_of_iterations=1",
        {**X65_MEANS, "max_number_of_iterations": 1, "also_save_raw_predictions": False},
    ),
    "local_test_mobilenetv2.sh train": (
        "train",
        "--logtostderr --train_split=trainval --model_variant=mobilenet_v2 --output_stride=16 "
        "--train_crop_size='513,513' --train_batch_size=4 --training_number_of_steps=10 --fine_tune_batch_norm=true "
        "--tf_initial_checkpoint=init_models/deeplabv3_mnv2_pascal_train_aug/model.ckpt-30000",
        {"model_variant": "mobilenet_v2", "atrous_rates": None, "decoder_output_stride": None, "train_batch_size": 4},
    ),
    "local_test_mobilenetv2.sh eval": (
        "eval",
        "--logtostderr --eval_split=val --model_variant=mobilenet_v2 --eval_crop_size='513,513' "
        "--max_number_of_evaluations=1",
        {"model_variant": "mobilenet_v2", "output_stride": 16, "atrous_rates": None},
    ),
    "local_test_mobilenetv2.sh vis": (
        "vis",
        "--logtostderr --vis_split=val --model_variant=mobilenet_v2 --vis_crop_size='513,513' "
        "--max_number_of_iterations=1",
        {"model_variant": "mobilenet_v2", "output_stride": 16, "vis_crop_size": (513, 513)},
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_command_lines(name):
    command, line, meaning = DOCUMENTED[name]
    found = configured(command, f"{line} {REQUIRED[command]}")
    assert {flag: found[flag] for flag in meaning} == meaning
    assert found["dataset_dir"] == "data"
    assert notes(command, line) == []


# ---- every flag: its default, a command line that gives it, and what that means

COMMON = {
    "min_resize_value": (None, "--min_resize_value=257", 257),
    "max_resize_value": (None, "--min_resize_value=257 --max_resize_value=513", 513),
    "resize_factor": (None, "--min_resize_value=257 --resize_factor=16", 16),
    "logits_kernel_size": (1, "--logits_kernel_size=3 --noaspp_with_batch_norm --atrous_rates=6", 3),
    "model_variant": ("mobilenet_v2", "--model_variant=resnet_v1_50_beta", "resnet_v1_50_beta"),
    "image_pyramid": (None, "--image_pyramid=0.5 --image_pyramid=1.0", (0.5, 1.0)),
    "add_image_level_feature": (True, "--add_image_level_feature=false", False),
    "image_pooling_crop_size": (None, "--image_pooling_crop_size=769,769", (769, 769)),
    "image_pooling_stride": ((1, 1), "--image_pooling_stride=4,5", (4, 5)),
    "aspp_with_batch_norm": (True, "--aspp_with_batch_norm=0", False),
    "aspp_with_separable_conv": (True, "--noaspp_with_separable_conv", False),
    "multi_grid": (None, "--multi_grid=1 --multi_grid=2 --multi_grid=4", (1, 2, 4)),
    "depth_multiplier": (1.0, "--depth_multiplier=0.5", 0.5),
    "divisible_by": (None, "--divisible_by=8", 8),
    "decoder_output_stride": (None, "--decoder_output_stride=8,4", (8, 4)),
    "decoder_use_separable_conv": (True, "--nodecoder_use_separable_conv", False),
    "merge_method": ("max", "--merge_method=avg", "avg"),
    "prediction_with_upsampled_logits": (True, "--noprediction_with_upsampled_logits", False),
    "dense_prediction_cell_json": (
        None,  # the release's empty string
        "--dense_prediction_cell_json=dense_prediction_cell_branch5_top1_cityscapes.json",
        dense_prediction_cell.CITYSCAPES_TOP1,
    ),
    "nas_stem_output_num_conv_filters": (20, "--nas_stem_output_num_conv_filters=64", 64),
    "nas_use_classification_head": (False, "--nas_use_classification_head", True),
    "nas_remove_os32_stride": (False, "--nas_remove_os32_stride=true", True),
    "use_bounded_activation": (False, "--use_bounded_activation", True),
    "aspp_with_concat_projection": (True, "--aspp_with_concat_projection=0", False),
    "aspp_with_squeeze_and_excitation": (False, "--aspp_with_squeeze_and_excitation=1", True),
    "aspp_convs_filters": (256, "--aspp_convs_filters=128", 128),
    "decoder_use_sum_merge": (False, "--decoder_use_sum_merge=1", True),
    "decoder_filters": (256, "--decoder_filters=19", 19),
    "decoder_output_is_logits": (
        False,
        "--decoder_output_is_logits=1 --decoder_output_stride=8 --decoder_filters=21",
        True,
    ),
    "image_se_uses_qsigmoid": (False, "--image_se_uses_qsigmoid=1", True),
    "quantize_delay_step": (-1, "--quantize_delay_step=100", 100),
    "atrous_rates": (None, "--atrous_rates=6,12,18", (6, 12, 18)),
    "output_stride": (16, "--output_stride=8", 8),
    "dataset": (None, "--dataset=cityscapes", "cityscapes"),  # the release's default: what find_dataset returns then
    "dataset_dir": (None, "--dataset_dir=tfrecord", "tfrecord"),
}
TRAIN = {
    "label_weights": (None, "--label_weights=0.1 --label_weights=0.9", (0.1, 0.9)),
    "num_clones": (1, "--num_clones=2", 2),
    "clone_on_cpu": (False, "--clone_on_cpu=True", True),
    "train_logdir": (None, "--train_logdir=exp", "exp"),
    "log_steps": (10, "--log_steps=1", 1),
    "save_interval_secs": (1200, "--save_interval_secs=60", 60),
    "save_summaries_secs": (600, "--save_summaries_secs=60", 60),
    "save_summaries_images": (False, "--save_summaries_images", True),
    "profile_logdir": (None, "--profile_logdir=profile", "profile"),
    "optimizer": ("momentum", "--optimizer=adam", "adam"),
    "last_layer_gradient_multiplier": (1.0, "--last_layer_gradient_multiplier=10", 10.0),
    "drop_path_keep_prob": (1.0, "--drop_path_keep_prob=0.8", 0.8),
    "initialize_last_layer": (True, "--initialize_last_layer=false", False),
    "slow_start_step": (0, "--slow_start_step=100", 100),
    "fine_tune_batch_norm": (True, "--fine_tune_batch_norm=false", False),
    "max_scale_factor": (2.0, "--max_scale_factor=1.5", 1.5),
    "hard_example_mining_step": (0, "--hard_example_mining_step=1000", 1000),
    "learning_policy": ("poly", "--learning_policy=step", "step"),
    "base_learning_rate": (0.0001, "--base_learning_rate=0.007", 0.007),
    "decay_steps": (0.0, "--decay_steps=20000", 20000.0),
    "end_learning_rate": (0.0, "--end_learning_rate=1e-6", 1e-6),
    "learning_rate_decay_factor": (0.1, "--learning_rate_decay_factor=0.5", 0.5),
    "learning_rate_decay_step": (2000, "--learning_rate_decay_step=100", 100),
    "learning_power": (0.9, "--learning_power=2", 2.0),
    "training_number_of_steps": (30000, "--training_number_of_steps=90000", 90000),
    "momentum": (0.9, "--momentum=0.5", 0.5),
    "adam_learning_rate": (0.001, "--adam_learning_rate=0.01", 0.01),
    "adam_epsilon": (1e-8, "--adam_epsilon=1e-3", 1e-3),
    "train_batch_size": (8, "--train_batch_size=16", 16),
    "weight_decay": (0.00004, "--weight_decay=0.0001", 0.0001),
    "train_crop_size": ((513, 513), "--train_crop_size=769,769", (769, 769)),
    "upsample_logits": (True, "--noupsample_logits", False),
    "tf_initial_checkpoint": (None, "--tf_initial_checkpoint=model.ckpt", "model.ckpt"),
    "last_layers_contain_logits_only": (False, "--last_layers_contain_logits_only", True),
    "slow_start_learning_rate": (1e-4, "--slow_start_learning_rate=1e-5", 1e-5),
    "min_scale_factor": (0.5, "--min_scale_factor=0.75", 0.75),
    "scale_factor_step_size": (0.25, "--scale_factor_step_size=0", 0.0),
    "top_k_percent_pixels": (1.0, "--top_k_percent_pixels=0.25", 0.25),
    "train_split": ("train", "--train_split=train_aug", "train_aug"),
}
BOTH = {
    "checkpoint_dir": (None, "--checkpoint_dir=exp", "exp"),
    "eval_interval_secs": (300, "--eval_interval_secs=60", 60),
    "eval_scales": ((1.0,), "--eval_scales=0.5 --eval_scales=1", (0.5, 1.0)),
    "add_flipped_images": (False, "--add_flipped_images=1", True),
}
EVAL = {
    **BOTH,
    "eval_logdir": (None, "--eval_logdir=exp", "exp"),
    "eval_batch_size": (1, "--eval_batch_size=4", 4),
    "eval_crop_size": ((513, 513), "--eval_crop_size=1025,2049", (1025, 2049)),
    "eval_split": ("val", "--eval_split=val_fine", "val_fine"),
    "max_number_of_evaluations": (0, "--max_number_of_evaluations=-1", -1),
}
VIS = {
    **BOTH,
    "vis_logdir": (None, "--vis_logdir=exp", "exp"),
    "vis_batch_size": (1, "--vis_batch_size=4", 4),
    "vis_crop_size": ((513, 513), "--vis_crop_size=1025,2049", (1025, 2049)),
    "vis_split": ("val", "--vis_split=test", "test"),
    "max_number_of_iterations": (0, "--max_number_of_iterations=3", 3),
    "colormap_type": ("pascal", "--colormap_type=ade20k", "ade20k"),
    "also_save_raw_predictions": (False, "--also_save_raw_predictions=true", True),
}
FLAGS = {"train": {**COMMON, **TRAIN}, "eval": {**COMMON, **EVAL}, "vis": {**COMMON, **VIS}}
CASES = [(command, flag) for command, table in FLAGS.items() for flag in table]


@pytest.mark.parametrize("command", TOOLS)
def test_defaults_are_the_releases(command):
    found = configured(command, "")
    expected = {flag: default for flag, (default, _, _) in FLAGS[command].items()}
    assert {flag: found[flag] for flag in expected} == expected


@pytest.mark.parametrize(("command", "flag"), CASES, ids=map("-".join, CASES))
def test_every_flag_is_taken(command, flag):
    default, line, value = FLAGS[command][flag]
    if flag == "multi_grid":
        line += " --model_variant=resnet_v1_101"
    assert configured(command, line)[flag] == value
    assert value != default


# What has lost its meaning: the release's default is shown, and giving it is told in one line.
EVERYWHERE = {"batch_norm_decay": "0.9997", "master": "", "keep_aspect_ratio": "True"}
RETIRED = {
    "train": {**EVERYWHERE, "num_replicas": "1", "startup_delay_steps": "15", "num_ps_tasks": "0", "task": "0"},
    "eval": {**EVERYWHERE, "label_weights": "unset"},
    "vis": {**EVERYWHERE, "label_weights": "unset"},
}


@pytest.mark.parametrize("command", TOOLS)
def test_flags_without_a_meaning_are_told(command):
    values = parsed(command, "")
    for flag, default in RETIRED[command].items():
        assert f"(default: {default})" in values[flag].help
    assert notes(command, "--quantize_delay_step=-1 --logtostderr") == []
    (note,) = notes(command, "--batch_norm_decay=0.997")
    assert note.startswith("--batch_norm_decay=0.997 has no effect: ") and "\n" not in note
    (note,) = notes(command, "--nokeep_aspect_ratio")
    assert note.startswith("--keep_aspect_ratio=False has no effect: ") and "\n" not in note
    if command != "train":
        told = notes(command, "--master=local --label_weights=1.0 --label_weights=2.0")
        assert [note.partition(" ")[0] for note in told] == ["--master=local", "--label_weights=1.0,2.0"]


def test_training_with_parameter_servers_is_told():
    line = "--num_replicas=2 --num_ps_tasks=1 --task=1 --startup_delay_steps=15 --master=grpc://host"
    told = notes("train", line)
    assert sorted(note.partition("=")[0] for note in told) == [
        "--master",
        "--num_ps_tasks",
        "--num_replicas",
        "--startup_delay_steps",
        "--task",
    ]
    assert all(" has no effect: " in note and "\n" not in note for note in told)


def test_flips_at_the_single_scale_are_told():
    """Trap 16: the release ignores them there; here they count, as in predict."""
    for command in ("eval", "vis"):
        assert notes(command, "--add_flipped_images --eval_scales=0.5,1.0") == []
        (note,) = notes(command, "--add_flipped_images")
        assert "--add_flipped_images counts at the single scale 1" in note


@pytest.mark.parametrize(
    ("command", "line", "expected"),
    [
        ("eval", "--eval_crop_size=513", "eval_crop_size=.513,.: expected two numbers"),
        ("eval", "--eval_scales=0", "eval_scales=.0.0,.: expected scales above 0"),
        ("eval", "--eval_batch_size=0", "eval_batch_size=0"),
        ("eval", "--eval_interval_secs=-1", "eval_interval_secs=-1"),
        ("eval", "--large_images=crop", "unknown large_images 'crop'"),
        ("eval", "--large_images=tile --eval_crop_size=", "large_images='tile': tile needs eval_crop_size"),
        ("eval", "--max_resize_value=513", "max_resize_value=513: needs min_resize_value"),
        ("vis", "--colormap_type=citiscapes", "unknown colormap_type 'citiscapes'; did you mean cityscapes"),
        ("train", "--train_crop_size=513", "crop_size=.513,.: expected two numbers"),
    ],
)
def test_mistakes_are_named_before_anything_starts(command, line, expected):
    with pytest.raises(DeepLabError, match=expected):
        configured(command, line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"eval_logdir": "log/eval", "max_number_of_evaluations": 0, "eval_split": "val"}),
        ("--mode=eval --max_number_of_evaluations=7", {"max_number_of_evaluations": 1}),
        ("--mode=continuous_eval --eval_logdir=scores", {"eval_logdir": "scores", "max_number_of_evaluations": 0}),
        ("--mode=train_and_eval --eval_split=val_fine --eval_scales=0.5,1", {"eval_scales": (0.5, 1.0)}),
    ],
)
def test_what_training_scores(line, expected):
    found = train.experiment(parsed("train", f"{line} {REQUIRED['train']}"))
    evaluation = found.evaluation_of_run
    assert evaluation.checkpoint_dir == found.run.train_logdir == "log"
    assert {name: getattr(evaluation, name) for name in expected} == expected


def test_crops_may_be_left_out():
    assert configured("eval", "--eval_crop_size=")["eval_crop_size"] is None
    assert configured("vis", "--vis_crop_size=")["vis_crop_size"] is None


def test_help_of_an_accepted_flag_says_so():
    values = flags.FlagValues()
    options.define_retired(values, {"old": (3, "nothing needs it")})
    assert values["old"].help == "accepted without effect: nothing needs it (default: 3)"


@pytest.mark.parametrize("flag", ["keep_aspect_ratio", "label_weights", "batch_norm_decay"])
def test_export_takes_the_common_flags(flag):
    values = flags.FlagValues()
    export_model.define(values)
    values(["export", "--checkpoint_path=c", "--export_path=e", f"--{flag}=1"])
    assert [note.split(" has no effect: ")[0] for note in options.retired_notes(values, retired.EXPORT)] in (
        [f"--{flag}=1"],
        [f"--{flag}=1.0"],
        [f"--{flag}=True"],
    )
