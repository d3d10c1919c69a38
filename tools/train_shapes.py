"""Trains the small embedded network on the synthetic shapes data set and writes it as a TF1-named checkpoint.

  python tools/train_shapes.py --output_dir=shapes_tf1 --steps=6000

A plain loop (Adam, cosine decay, mirrored examples), enough for a demonstration; it is not the release's trainer.
"""

import math
import time

from absl import flags

from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options

# The release's decay (0.9997 in the head) would remember the first steps of so short a run.
_BATCH_NORM_DECAY = 0.99


def define(values: flags.FlagValues):
    """Defines the flags of this command."""
    flags.DEFINE_string("output_dir", None, "folder for the checkpoint model.ckpt", flag_values=values)
    flags.DEFINE_integer("steps", 6000, "training steps (default: 6000)", flag_values=values)
    flags.DEFINE_integer("batch_size", 16, "examples a step (default: 16)", flag_values=values)
    flags.DEFINE_integer("examples", 6000, "number of training examples (default: 6000)", flag_values=values)
    flags.DEFINE_float("learning_rate", 2e-3, "highest learning rate (default: 0.002)", flag_values=values)


def _examples(count: int):
    """The first training examples as arrays: images [n, h, w, 3] and labels [n, h, w]."""
    import numpy as np

    from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example

    examples = [shapes_example(0, FIRST_INDEX["train"] + index) for index in range(count)]
    return tuple(np.stack(arrays) for arrays in zip(*examples, strict=True))


def _make_step(model, optimizer):
    import tensorflow as tf

    from deeplab_tf.layers import resize_bilinear

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = resize_bilinear(model(tf.cast(images, tf.float32), training=True), labels.shape[1:3])
            seen = labels != 255
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(seen, labels, 0), logits)
            loss = tf.reduce_sum(tf.where(seen, losses, 0.0)) / tf.reduce_sum(tf.cast(seen, tf.float32))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def main(values: flags.FlagValues) -> None:
    """Trains and saves."""
    options.require(values, "output_dir")
    if min(values.steps, values.batch_size, values.examples) < 1:
        raise DeepLabError("--steps, --batch_size and --examples: expected numbers of at least 1")
    options.start_tensorflow()
    import keras
    import numpy as np

    from deeplab_tf.checkpoint import save_tf1_checkpoint
    from deeplab_tf.model import build_model
    from deeplab_tf.released import SHAPES_MNV2_CONFIG

    keras.utils.set_random_seed(0)
    images, labels = _examples(values.examples)
    model = build_model(SHAPES_MNV2_CONFIG)
    for layer in model.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = _BATCH_NORM_DECAY
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, values.steps, warmup_target=values.learning_rate, warmup_steps=values.steps // 20
    )
    step = _make_step(model, keras.optimizers.AdamW(schedule, weight_decay=1e-4))
    random, start, average = np.random.default_rng(0), time.time(), math.nan
    for number in range(1, values.steps + 1):
        chosen = random.integers(0, len(images), values.batch_size)
        way = random.choice((1, -1))
        loss = float(step(images[chosen][:, :, ::way], labels[chosen][:, :, ::way].astype(np.int32)))
        average = loss if math.isnan(average) else 0.99 * average + 0.01 * loss
        if number % 200 == 0 or number == values.steps:
            print(f"step {number}/{values.steps}  loss {average:.4f}  {time.time() - start:.0f} s", flush=True)
            save_tf1_checkpoint(model, f"{values.output_dir}/model.ckpt", state={"global_step": np.int64(number)})


def run(argv=None):
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
