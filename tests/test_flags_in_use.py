"""A flag that would do nothing is an error, in every command, in most cases also where it is given with its default."""

import shlex

import pytest
from absl import flags
from commands import everything, finished, one_line

from deeplab_tf.arch.dense_prediction_cell import CITYSCAPES_TOP1
from deeplab_tf.config import ModelConfig, override, require_effect
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import (
    benchmark,
    build_data,
    convert,
    doctor,
    export_model,
    label,
    options,
    pack,
    predict,
    published,
    serve,
    train,
    verify,
    vis,
)
from deeplab_tf.tools import eval as eval_tool

RUN = "--train_logdir=run --dataset_dir=data"
EVAL = "--checkpoint_dir=x --dataset_dir=x --eval_logdir=y"
VIS = "--checkpoint_dir=x --dataset_dir=x --vis_logdir=y"
VOC_PARTS = "--image_folder=a --semantic_segmentation_folder=b --list_folder=c"
ADE_PARTS = "--train_image_folder=a --train_image_label_folder=b --val_image_folder=c --val_image_label_folder=d"
# (command, what is given, the flag that does nothing, what it needs)
IDLE = [
    (build_data, "--dataset=pascal_voc_seg --root=x", "root=x", "--dataset=folder"),
    (build_data, "--dataset=shapes --root=x", "root=x", "--dataset=folder"),
    (build_data, "--dataset=folder --root=x --voc_root=y", "voc_root=y", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=folder --root=x --image_format=jpg", "image_format=jpg", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=ade20k --image_folder=x", "image_folder=x", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=cityscapes --sbd_dir=x", "sbd_dir=x", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=pascal_voc_seg --cityscapes_root=x", "cityscapes_root=x", "--dataset=cityscapes"),
    (build_data, "--dataset=folder --root=x --ade20k_root=x", "ade20k_root=x", "--dataset=ade20k"),
    (build_data, "--dataset=folder --root=x --val_image_label_folder=x", "val_image_label_folder=x", "--dataset=ade"),
    (build_data, "--dataset=pascal_voc_seg --train_aug_size=10582", "train_aug_size=10582", "--sbd_dir"),
    (build_data, f"--dataset=pascal_voc_seg --voc_root=x {VOC_PARTS}", "voc_root=x", "one of --image_folder, "),
    (build_data, f"--dataset=ade20k --ade20k_root=x {ADE_PARTS}", "ade20k_root=x", "one of --train_image_folder, "),
    (train, f"{RUN} --crf_w1=4", "crf_w1=4.0", "--crf"),
    (train, f"{RUN} --tfds_features=a,b", "tfds_features=a,b", "--dataset=tfds:..."),
    (train, f"{RUN} --adam_learning_rate=0.001", "adam_learning_rate=0.001", "--optimizer=adam"),
    (train, f"{RUN} --optimizer=adam --momentum=0.9", "momentum=0.9", "--optimizer=momentum"),
    (train, f"{RUN} --learning_rate_decay_step=5", "learning_rate_decay_step=5", "--learning_policy=step"),
    (train, f"{RUN} --learning_policy=step --learning_power=0.5", "learning_power=0.5", "--learning_policy=poly"),
    (train, f"{RUN} --slow_start_learning_rate=1", "slow_start_learning_rate=1.0", "--slow_start_step"),
    (train, f"{RUN} --focal_gamma=2", "focal_gamma=2.0", "--loss=focal"),
    (train, f"{RUN} --hard_example_mining_step=9", "hard_example_mining_step=9", "--top_k_percent_pixels"),
    (train, f"{RUN} --teacher=x --unlabelled_share=0.5", "unlabelled_share=0.5", "--unlabelled_dir"),
    (train, f"{RUN} --noinitialize_last_layer", "initialize_last_layer=False", "--tf_initial_checkpoint"),
    (train, f"{RUN} --decoder_filters=256", "decoder_filters=256", "--decoder_output_stride"),
    (train, f"{RUN} --drop_path_keep_prob=0.5", "drop_path_keep_prob=0.5", "a --model_variant of NAS"),
    (train, f"{RUN} --merge_method=max", "merge_method=max", "--image_pyramid"),
    (train, f"{RUN} --eval_interval_steps=9", "eval_interval_steps=9", "--mode=train_and_eval"),
    (train, f"{RUN} --eval_logdir=x", "eval_logdir=x", "--mode=eval or continuous_eval"),
    (train, f"{RUN} --mode=eval --max_number_of_evaluations=1", "max_number_of_evaluations=1", "--mode=continuous"),
    (train, f"{RUN} --mode=eval --log_to=wandb", "log_to=wandb", "--mode=train or train_and_eval"),
    (train, f"{RUN} --strategy=one_device --num_clones=2", "num_clones=2", "--strategy=mirrored or auto"),
    (train, f"{RUN} --strategy=mirrored --tpu=local", "tpu=local", "--strategy=tpu or auto"),
    (train, f"{RUN} --noaspp_with_batch_norm --aspp_convs_filters=128", "aspp_convs_filters=128", "ASPP: "),
    (train, f"{RUN} --noaspp_with_batch_norm --noadd_image_level_feature", "add_image_level_feature=False", "ASPP: "),
    (train, f"{RUN} --noadd_image_level_feature --image_pooling_stride=4,5", "image_pooling_stride=4,5", "the pooled"),
    (train, f"{RUN} --image_se_uses_qsigmoid", "image_se_uses_qsigmoid=True", "--aspp_with_squeeze_and_excitation"),
    (train, f"{RUN} --noaspp_with_separable_conv", "aspp_with_separable_conv=False", "--atrous_rates and ASPP"),
    (train, f"{RUN} --multi_grid=1,2,4", "multi_grid=1,2,4", "a ResNet or an Xception"),
    (train, f"{RUN} --model_variant=resnet_v1_50 --depth_multiplier=0.5", "depth_multiplier=0.5", "a MobileNet or VGG"),
    (train, f"{RUN} --image_pyramid=1 --merge_method=avg", "merge_method=avg", "an --image_pyramid of several"),
    (
        train,
        f"{RUN} --optimizer=adam --base_learning_rate=0.01",
        "base_learning_rate=0.01",
        "--optimizer=momentum, or -",
    ),
    (train, f"{RUN} --optimizer=adam --learning_policy=cosine", "learning_policy=cosine", "--optimizer=momentum, or -"),
    (train, f"{RUN} --learning_policy=step --end_learning_rate=0.1", "end_learning_rate=0.1", "--learning_policy=poly"),
    (train, f"{RUN} --last_layers_contain_logits_only", "last_layers_contain_logits_only=True", "--noinitialize_last"),
    (train, f"{RUN} --initialize_extra_bands=zero", "initialize_extra_bands=zero", "--tf_initial_checkpoint, and"),
    (train, f"{RUN} --unfold_batch_norm=8", "unfold_batch_norm=8", "--tf_initial_checkpoint"),
    (build_data, "--dataset=folder --root=x --label_format=png", "label_format=png", "a data set of the release"),
    (build_data, "--dataset=shapes --exif=apply", "exif=apply", "photographs from files"),
    (eval_tool, f"{EVAL} --crf_iterations=10", "crf_iterations=10", "--crf"),
    (eval_tool, f"{EVAL} --dataset=shapes --tfds_features=a,b", "tfds_features=a,b", "--dataset=tfds:..."),
    (vis, f"{VIS} --crf_w2=3", "crf_w2=3.0", "--crf"),
    (predict, "--checkpoint=x --input=y --crf_sigma_beta=3", "crf_sigma_beta=3.0", "--crf"),
    (predict, "--checkpoint=x --input=y --resize=none --longest_side=513", "longest_side=513", "--resize=longest"),
    (export_model, "--checkpoint=x --export_path=y.pb --uint8_io", "uint8_io=True", "--format=tflite"),
    (export_model, "--checkpoint=x --export_path=y --precision=float32", "precision=float32", "--format=tflite"),
    (serve, "--checkpoint=x --runtime=tflite --max_batch_size=8", "max_batch_size=8", "another --runtime"),
    (convert, "--checkpoint=x --output_dir=y --to_tf1 --dataset=shapes", "dataset=shapes", "a model directory"),
    (doctor, "--checkpoint=x --splits=val", "splits=val", "--dataset_dir"),
    (doctor, "--dataset_dir=x --num_images=8", "num_images=8", "--checkpoint or --train_logdir"),
    (doctor, "--dataset_dir=x --config=shapes_resnet", "config=shapes_resnet", "--train_logdir"),
    (doctor, "--dataset_dir=x --tfds_features=a,b", "tfds_features=a,b", "--dataset=tfds:..."),
    (label, "--suspects=x --runtime=tf", "runtime=tf", "--checkpoint"),
    (doctor, "--dataset_dir=x --suspects=y", "suspects=y", "--dataset_dir and --checkpoint"),
    (doctor, "--dataset_dir=x --fold_checkpoints=y", "fold_checkpoints=y", "--suspects"),
    (pack, "--server=ade20k --predictions=x --images=y --ids=auto", "ids=auto", "--server=cityscapes"),
    (pack, "--server=cityscapes --predictions=x --images=y --competition=comp6", "competition=comp6", "--server=voc"),
    (published, "--lineage --filter=voc", "filter=voc", "a command without --lineage"),
    (verify, "shapes_resnet --record=x --output=y", "output=y", "a command without --record"),
    (benchmark, "--what=help --clients=3", "clients=3", "--what=serve"),
    (benchmark, "--what=help --sizes=65x65", "sizes=65x65", "--what=inference"),
    (benchmark, "--what=serve --rounds=3", "rounds=3", "--what=pipeline or train_step or crf or metrics or inference"),
    (benchmark, "--what=pipeline --repeats=3", "repeats=3", "--what=convert or help"),
    (benchmark, "--what=help --networks=tiny", "networks=tiny", "--what=train_step"),
    (benchmark, "--what=train_step --device=cpu", "device=cpu", "--what=train_step with --networks"),
    (build_data, "--dataset=shapes --beam_runner=DirectRunner --num_processes=2", "num_processes=2", "a build without"),
]


@pytest.mark.parametrize(("command", "line", "flag", "needs"), IDLE, ids=lambda value: str(value)[:60])
def test_a_flag_that_would_do_nothing(command, line, flag, needs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(command, *shlex.split(line)) == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: --{flag} would do nothing: it needs {needs}")
    assert not everything(tmp_path), "before anything is done"


def test_what_is_not_given_or_has_its_condition_is_not_refused():
    values = flags.FlagValues()
    for name in ("a", "b", "c"):
        flags.DEFINE_integer(name, 3, "", flag_values=values)
    flags.DEFINE_multi_string("many", None, "", flag_values=values)
    rules = (options.Use(("a", "many"), "b above c", lambda v: v.b > v.c),)
    values(["tool", "--c=4"])
    options.require_use(values, rules, values)
    values(["tool", "--a=3", "--b=5"])
    options.require_use(values, rules, values)
    for given, shown in (("--a=3", "a=3"), ("--many=x", "many=x"), ("--many=x --many=y", "many=x,y")):
        values.unparse_flags()
        for name in ("a", "b", "c", "many"):
            values[name].unparse()
        values(["tool", "--b=1", *given.split()])
        with pytest.raises(DeepLabError, match=f"^--{shown} would do nothing: it needs b above c; leave it out or giv"):
            options.require_use(values, rules, values)


def test_a_default_of_the_release_is_never_refused():
    values = flags.FlagValues()
    train.define(values)
    line = "--optimizer=adam --base_learning_rate=0.0001 --learning_policy=poly --slow_start_step=0"
    line += (
        " --noaspp_with_batch_norm --aspp_convs_filters=256 --aspp_with_separable_conv --scale_factor_step_size=0.25"
    )
    values(["tool", *f"{RUN} {line} --min_scale_factor=2 --last_layers_contain_logits_only=false".split()])
    asked = train.experiment(values)
    options.require_use(values, train._USES, asked)
    require_effect(asked.model, options.given(values, ModelConfig, train._NAMES[ModelConfig]))


def test_changes_of_a_model_that_has_them_already_or_that_they_change():
    config = ModelConfig(multi_grid=(1, 2, 4))
    assert override(config, {"multi_grid": (1, 2, 4)}, remembered=["multi_grid"], source="x") == config
    with pytest.raises(
        DeepLabError, match="^--image_pooling_crop_size=65,65 would do nothing: it needs the pooled feat"
    ):
        off = ModelConfig(add_image_level_feature=False)
        override(off, {"image_pooling_crop_size": (65, 65)}, remembered=["image_pooling_crop_size"], source="x")
    given = override(ModelConfig(), {"image_pooling_crop_size": (65, 65)}, remembered=(), source="x")
    assert given.image_pooling_crop_size == (65, 65)
    with pytest.raises(
        DeepLabError, match="^--dense_prediction_cell_json would do nothing: it needs --aspp_with_batch"
    ):
        require_effect(
            ModelConfig(aspp_with_batch_norm=False, dense_prediction_cell_json=CITYSCAPES_TOP1),
            ["dense_prediction_cell_json"],
        )


def test_the_release_command_lines_give_no_idle_flag():
    from test_release_command_lines import DOCUMENTED, parsed

    for command, line, _ in DOCUMENTED.values():
        if command == "train":
            values = parsed("train", line)
            asked = train.experiment(values)
            options.require_use(values, train._USES, asked)
            require_effect(asked.model, options.given(values, ModelConfig, train._NAMES[ModelConfig]))
