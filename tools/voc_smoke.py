"""The release's local_test.sh and local_test_mobilenetv2.sh in seconds: every script once, on a few drawn pictures.

The scripts' folders, splits and flags are the release's; a small crop, drawn pictures in the layout of PASCAL VOC and
weights drawn at random in the place of the released ones take the time and the network out of it.
"""

import importlib
import shlex
from typing import TYPE_CHECKING

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools.cli import file_of

if TYPE_CHECKING:
    from deeplab_tf.config import ModelConfig

STEPS = 10
CROP = 65
_PICTURES = {"train": 4, "val": 3}
_INITIAL = "model.ckpt"
_RATES = ("--atrous_rates=6", "--atrous_rates=12", "--atrous_rates=18")
# What each of the two scripts says of its network: to train, eval and vis, and to export_model.
NETWORKS = {
    "voc_smoke": (
        ("--model_variant=xception_65", *_RATES, "--output_stride=16", "--decoder_output_stride=4"),
        ("--model_variant=xception_65", *_RATES, "--output_stride=16", "--decoder_output_stride=4"),
    ),
    "voc_smoke_mobilenetv2": (
        ("--model_variant=mobilenet_v2", "--output_stride=16"),
        ("--model_variant=mobilenet_v2",),
    ),
}


def _lists(root: files.AnyPath) -> None:
    """Writes the list trainval.txt beside those of its parts."""
    folder = root / "ImageSets" / "Segmentation"
    names = [(folder / f"{split}.txt").read_text(encoding="utf-8") for split in _PICTURES]
    with files.written(folder / "trainval.txt") as file:
        file.write_text("".join(names), encoding="utf-8")


def command_lines(what: str, root: str) -> list[tuple[str, tuple[str, ...]]]:
    """Returns the commands with their flags, in order, whose paths lie below `root`."""
    network, exported = NETWORKS[what]
    data = f"{root}/VOCdevkit/VOC2012"
    run = f"{root}/exp/train_on_trainval_set"
    records = f"--dataset_dir={root}/tfrecord"
    checkpoints = f"--checkpoint_dir={run}/train"
    size = f"{CROP},{CROP}"
    build = (
        "--dataset=pascal_voc_seg",
        f"--image_folder={data}/JPEGImages",
        f"--semantic_segmentation_folder={data}/SegmentationClass",
        f"--list_folder={data}/ImageSets/Segmentation",
        "--image_format=jpg",
        f"--output_dir={root}/tfrecord",
        "--num_shards=1",
        "--num_processes=1",
    )
    train = (
        *("--logtostderr", "--train_split=trainval", *network, f"--train_crop_size={size}", "--train_batch_size=4"),
        *(f"--training_number_of_steps={STEPS}", "--fine_tune_batch_norm=true", f"--train_logdir={run}/train"),
        *(f"--tf_initial_checkpoint={root}/init_models/{_INITIAL}", records),
    )
    score = ("--logtostderr", "--eval_split=val", *network, f"--eval_crop_size={size}", checkpoints, records)
    draw = ("--logtostderr", "--vis_split=val", *network, f"--vis_crop_size={size}", checkpoints, records)
    export = (
        *("--logtostderr", f"--checkpoint_path={run}/train/model.ckpt-{STEPS}", *exported, "--num_classes=21"),
        *(f"--export_path={run}/export/frozen_inference_graph.pb", f"--crop_size={CROP}", f"--crop_size={CROP}"),
        "--inference_scales=1.0",
    )
    return [
        ("build-data", build),
        ("train", train),
        ("eval", (*score, f"--eval_logdir={run}/eval", "--max_number_of_evaluations=1")),
        ("vis", (*draw, f"--vis_logdir={run}/vis", "--max_number_of_iterations=1")),
        ("export", export),
    ]


def _initial_network(what: str) -> "ModelConfig":
    """Returns the network that the flags of a script describe."""
    from absl import flags

    from deeplab_tf.config import ModelConfig
    from deeplab_tf.tools import options

    values = flags.FlagValues()
    options.define_flags(values, ModelConfig)
    values(["network", *NETWORKS[what][0]])
    return ModelConfig(**options.given(values, ModelConfig), num_classes=21)


def _run(name: str, given: tuple[str, ...]) -> int:
    """Runs a command as a shell would, after a line that shows it, and returns its exit status."""
    print(f"\n$ {shlex.join(['deeplab-tf', name, *given])}", flush=True)
    command = importlib.import_module(f"deeplab_tf.tools.{file_of(name)}")
    try:
        command.run([f"deeplab-tf {name}", *given])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def smoke(what: str, folder: files.AnyPath) -> int:
    """Runs build-data, train, eval, vis and export with the flags of a script of the release.

    Args:
      what: a name of `NETWORKS`.
      folder: where everything is written; the folder `what` in it must not exist yet.

    Returns:
      The exit status of the command that failed; 0 if none did.

    Raises:
      DeepLabError: the folder is there already, or cannot be written.
    """
    from deeplab_tf.data.shapes import write_shapes
    from deeplab_tf.network.build import build_model
    from deeplab_tf.weights.tf1 import save_tf1_checkpoint

    root = folder / what
    if root.exists():
        raise DeepLabError(f"--output_dir={folder}: {root} is there already; delete it, or choose another folder")
    print(f"{sum(_PICTURES.values())} drawn pictures in the layout of PASCAL VOC, and weights drawn at random")
    with files.writing(root, flag="--output_dir"):
        _lists(write_shapes(root / "VOCdevkit" / "VOC2012", splits=_PICTURES, height=CROP - 4, width=CROP))
    save_tf1_checkpoint(build_model(_initial_network(what)), root / "init_models" / _INITIAL)
    for name, given in command_lines(what, str(root)):
        if status := _run(name, given):
            print(f"\n{what}: deeplab-tf {name} ended with status {status}")
            return status
    print(f"\n{what}: build-data, train, eval, vis and export ran; look at {root / 'exp'}")
    return 0
