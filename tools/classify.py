r"""Classifies photographs by an ImageNet checkpoint: the backbone that a segmentation network starts from, whole.

  deeplab-tf classify --checkpoint=xception_65_imagenet photos
  deeplab-tf classify --checkpoint=mobilenet_v2_1.0_224.tgz --top=3 cat.jpg dog.jpg

Prints the most likely classes of each photograph with their probabilities. The checkpoints are those of the release's
model_zoo.md (Xception, ResNet-v1 beta) and of slim (MobileNetV1, V2 and EdgeTPU, ResNet-v1 with the strides of the
release); the photograph's middle is resized as slim's evaluation does. Their 1,001 classes begin with the background.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from absl import flags

from deeplab_tf import files
from deeplab_tf.arch.spec import NORM_OPTIONS
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options

_FIRST = ("checkpoint", "input", "top", "class_names", "image_size")
# What weights may leave open of a backbone; a classifier has no head.
_KEPT = ("model_variant", "depth_multiplier", "divisible_by", *NORM_OPTIONS)
_NAMES: Mapping[str, str | None] = {
    field.name: None for field in dataclasses.fields(ModelConfig) if field.name not in _KEPT
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "ImageNet weights with their logits: a name of the zoo, an archive or a checkpoint of TensorFlow 1"
    options.define_path(values, "checkpoint", None, text, named=True)
    options.define_paths(values, "input", None, "image file, folder or glob; several are allowed")
    flags.DEFINE_integer("top", 5, "classes that are printed (default: 5)", lower_bound=1, flag_values=values)
    text = "file with a class a line, with or without the background (default: ImageNet's)"
    options.define_path(values, "class_names", None, text)
    text = "pixels of the sides of the network's picture (default: 299 for Xception, else 224)"
    flags.DEFINE_integer("image_size", None, text, lower_bound=33, flag_values=values)
    options.define_flags(values, ModelConfig, _NAMES)
    help_pages.put_first(values, _FIRST)


def _names(path: str | None) -> list[str] | None:
    if path is None:
        return None
    try:
        lines = files.path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DeepLabError(f"--class_names={path}: cannot be read ({error}); expected a name a line") from None
    return [line.strip() for line in lines if line.strip()]


def main(values: flags.FlagValues) -> int:
    """Prints the classes of each photograph; 1 where one could not be read."""
    options.require(values, "checkpoint", "input")
    given = _names(values.class_names)
    options.start_tensorflow()
    from deeplab_tf.inference.classify import class_names, classify
    from deeplab_tf.inference.inputs import expand_inputs
    from deeplab_tf.ops.images import read_image
    from deeplab_tf.weights.classifying import open_classifier

    photographs = expand_inputs(values.input)
    opened = open_classifier(values.checkpoint, options.given(values, ModelConfig, _NAMES))
    side = values.image_size or opened.side
    names = class_names(opened.classes, given)
    print(f"{opened.config.model_variant}, {opened.classes} classes, {side} x {side}; {opened.receipt.summary()}")
    for note in opened.notes:
        print(f"Note: {note}")
    failed = 0
    for photograph in photographs:
        try:
            (shares,) = classify(opened.model, [read_image(photograph)], side)
        except DeepLabError as error:
            failed += 1
            print(f"FAILED  {error}")
            continue
        print(photograph)
        for number in shares.argsort()[::-1][: values.top]:
            print(f"  {100 * shares[number]:5.1f} %  {number:4d}  {names[number]}")
    return 1 if failed else 0


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="input")


if __name__ == "__main__":
    run()
