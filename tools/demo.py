"""Demonstrates the whole way without network or data: converts the embedded checkpoint, segments, scores, fine-tunes.

  deeplab-tf demo --output_dir=demo
  deeplab-tf demo --what=voc_smoke

The embedded network (a small ResNet, trained on synthetic shapes) is stored like the release's own, so that it takes
the same steps as a real one. It is then trained further, for a few seconds, on pictures as they look at dusk. Writes
DIR/model (model directory), DIR/images, DIR/predictions, DIR/sheet.png, and the records and the run of the training.

voc_smoke runs build-data, train (10 steps), eval, vis and export once with the flags of the release's local_test.sh
(Xception-65), voc_smoke_mobilenetv2 with those of local_test_mobilenetv2.sh, on a few drawn pictures.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf import files
from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options, voc_smoke

if TYPE_CHECKING:
    import keras
    import numpy as np

    from deeplab_tf.inference.files import ImageResult
    from deeplab_tf.weights.loading import Loaded
    from deeplab_tf.weights.model_directory import ModelCard

_NAME = "shapes_resnet"
_SHOWN = 6  # pictures on the sheet
_BATCH = 25
_DUSK_PICTURES = 96
_DUSK_STEPS = 30
_SHAPES = "shapes"
_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("held_out",), "--what=shapes", lambda values: values.what == _SHAPES),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_path(values, "output_dir", "demo", "folder to write (default: demo)")
    text = "shapes, or a test of all commands: voc_smoke, voc_smoke_mobilenetv2 (default: shapes)"
    flags.DEFINE_enum("what", _SHAPES, [_SHAPES, *voc_smoke.NETWORKS], text, flag_values=values)
    text = "held-out pictures that are scored (default: 200)"
    flags.DEFINE_integer("held_out", 200, text, flag_values=values)


def _held_out(first: int, count: int, split: str = "val") -> "tuple[np.ndarray, np.ndarray]":
    """Returns pictures, uint8 [n, h, w, 3], and labels, uint8 [n, h, w], that the network was not trained on."""
    import numpy as np

    from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example

    examples = [shapes_example(0, FIRST_INDEX[split] + index) for index in range(first, first + count)]
    return np.stack([image for image, _ in examples]), np.stack([label for _, label in examples])


def _at_dusk(images: "np.ndarray") -> "np.ndarray":
    """Returns the images in the little and mostly blue light of dusk."""
    import numpy as np

    return (images * np.array([0.15, 0.2, 0.35])).astype(np.uint8)


def _score(model: "keras.Model", count: int, *, at_dusk: bool = False) -> "np.ndarray":
    """Returns the confusion matrix over the first `count` held-out pictures, int64 [classes, classes]."""
    import numpy as np

    from deeplab_tf.inference.predict import predict
    from deeplab_tf.network.wrapped import config_of
    from deeplab_tf.ops.metrics import confusion_matrix

    classes = config_of(model).num_classes
    total = np.zeros((classes, classes), np.int64)
    for first in range(0, count, _BATCH):
        images, labels = _held_out(first, min(_BATCH, count - first))
        images = _at_dusk(images) if at_dusk else images
        total += confusion_matrix(labels, predict(model, images, runtime="tf"), classes)
    return total


def _write_images(folder: files.AnyPath, images: "np.ndarray") -> list[str]:
    from deeplab_tf.ops.images import write_png

    paths = []
    for number, image in enumerate(images):
        path = folder / f"shapes_{number:02d}.png"
        write_png(image, path)
        paths.append(str(path))
    return paths


def _sheet(
    card: "ModelCard", images: "np.ndarray", labels: "np.ndarray", results: "Sequence[ImageResult]", miou: float
) -> "np.ndarray":
    """Returns the sheet of pictures, labels and predictions, uint8 [h, w, 3]."""
    import io

    import numpy as np
    import PIL.Image

    from deeplab_tf.ops.images import FORMATS
    from deeplab_tf.ops.pictures import IGNORE_COLOUR, blend, colour_mask
    from deeplab_tf.ops.sheets import picture_sheet

    rows = []
    for image, label, result in zip(images, labels, results, strict=True):
        raw = next(file for file in result.files if file.name.endswith("_raw.png"))
        with PIL.Image.open(io.BytesIO(raw.read_bytes()), formats=FORMATS) as image_of_classes:
            predicted = np.array(image_of_classes)
        truth = colour_mask(label, card.palette, ignore_label=card.ignore_label)
        rows.append([image, truth, colour_mask(predicted, card.palette), blend(image, predicted, card.palette)])
    legend = [*zip(card.class_names, card.palette, strict=True), ("not scored", IGNORE_COLOUR)]
    title = f"Shapes held out from training: mean IoU {miou:.3f}"
    return picture_sheet(rows, column_titles=("picture", "label", "prediction", "overlay"), legend=legend, title=title)


def _write_records(folder: files.AnyPath) -> None:
    """Writes pictures at dusk as TFRecords; they are of the test split, which the network was not trained on."""
    import tensorflow as tf

    from deeplab_tf.data import records

    path = folder / records.shard_name("train", 0, 1)
    images, labels = _held_out(0, _DUSK_PICTURES, "test")
    with files.written(path, flag="--output_dir") as file, tf.io.TFRecordWriter(str(file)) as writer:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            example = records.make_example(
                tf.io.encode_png(_at_dusk(image)).numpy(),
                tf.io.encode_png(label[..., None]).numpy(),
                filename=f"dusk_{number:03d}",
                height=label.shape[0],
                width=label.shape[1],
            )
            writer.write(example)


def _fine_tune(loaded: "Loaded", folder: files.AnyPath) -> "Loaded":
    """Trains the converted model for a few seconds on pictures at dusk, and returns the trained one."""
    from deeplab_tf.config import DataConfig, Experiment, RunConfig, TrainConfig
    from deeplab_tf.training.progress import Progress, TrainingObserver
    from deeplab_tf.training.train import train
    from deeplab_tf.weights.loading import open_model

    class Printer(TrainingObserver):
        def progressed(self, progress: Progress) -> None:
            print(f"   step {progress.step}  loss {progress.cross_entropy:.3f}")

    _write_records(folder / "records")
    data = DataConfig(dataset="shapes", dataset_dir=str(folder / "records"), crop_size=(129, 129), batch_size=8)
    update = TrainConfig(training_number_of_steps=_DUSK_STEPS, base_learning_rate=0.005)
    run = RunConfig(
        train_logdir=str(folder / "run"),
        tf_initial_checkpoint=str(folder / "model"),
        recalibrate_batch_norm=8,
        log_steps=10,
    )
    outcome = train(Experiment(loaded.card.config, update, data, run), observer=Printer())
    return open_model(outcome.checkpoint)


def main(values: flags.FlagValues) -> int:
    """Runs the demonstration and prints its steps and scores."""
    options.require_use(values, _USES, values)
    if values.held_out < 1:
        raise DeepLabError(f"--held_out={values.held_out}: expected a number of at least 1")
    start = time.monotonic()
    options.start_tensorflow()
    folder = files.path(values.output_dir)
    if values.what != _SHAPES:
        return voc_smoke.smoke(values.what, folder)
    _demonstrate(folder, values.held_out)
    print(f"Look at {folder / 'sheet.png'} ({time.monotonic() - start:.0f} s)")
    return 0


def _demonstrate(folder: files.AnyPath, held_out: int) -> None:
    """Converts, segments, scores and fine-tunes in a folder, and scores `held_out` pictures."""
    from deeplab_tf.inference.files import predict_files
    from deeplab_tf.ops.images import write_png
    from deeplab_tf.ops.metrics import iou_per_class, mean_iou
    from deeplab_tf.weights.loading import open_model
    from deeplab_tf.weights.model_directory import save_model

    print(f"1. Converting the embedded checkpoint {_NAME}")
    source = open_model(_NAME)
    if (folder / "model").exists():
        print(f"   {folder / 'model'} is there already and is used")
    else:
        save_model(folder / "model", source.model, source.receipt, card=source.card, state=source.state)
        print(f"   {source.receipt.summary()}\n   written to {folder / 'model'}")
    loaded = open_model(folder / "model")

    print(f"2. Segmenting {_SHOWN} pictures")
    images, labels = _held_out(held_out, _SHOWN)
    pictures = _write_images(folder / "images", images)
    choice = PredictConfig(resize="none", runtime="tf")  # to measure which is fastest takes longer than they do
    results = list(predict_files(loaded.model, loaded.card, pictures, folder / "predictions", choice))
    print(f"   written to {folder / 'predictions'}")

    print(f"3. Scoring {held_out} held-out pictures")
    matrix = _score(loaded.model, held_out)
    scores = zip(loaded.card.class_names, iou_per_class(matrix), strict=True)
    print(options.table({name: f"IoU {value:.3f}" for name, value in scores}))
    miou = mean_iou(matrix)
    print(f"   mean IoU {miou:.3f}")

    print("4. Fine-tuning for a few seconds on pictures at dusk")
    before = mean_iou(_score(loaded.model, held_out, at_dusk=True))
    tuned = _fine_tune(loaded, folder)
    after = mean_iou(_score(tuned.model, held_out, at_dusk=True))
    print(f"   mean IoU on held-out pictures at dusk: {before:.3f} before, {after:.3f} after")

    write_png(_sheet(loaded.card, images, labels, results, miou), folder / "sheet.png")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
