"""Shows the whole way without network or data: converts the embedded checkpoint, segments, scores and fine-tunes it.

  deeplab-tf demo --output_dir=demo

The embedded network (a small ResNet, trained on synthetic shapes) is stored as the release stores its own, so that this
takes the same steps as a real one. Then it is trained further, for a few seconds, on pictures as they look at dusk.
Writes DIR/model (model directory), DIR/images, DIR/predictions, DIR/sheet.png, and the records and the run of the
training.
"""

import time

from absl import flags

from deeplab_tf import files
from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options

_NAME, _SHOWN, _BATCH = "shapes_resnet", 6, 25
_DUSK_PICTURES, _DUSK_STEPS = 96, 30


def define(values: flags.FlagValues):
    """Defines the flags of this command."""
    options.define_path(values, "output_dir", "demo", "folder to write (default: demo)")
    text = "held-out pictures that are scored (default: 200)"
    flags.DEFINE_integer("held_out", 200, text, flag_values=values)


def _held_out(first: int, count: int, split: str = "val"):
    """Pictures [n, h, w, 3] and labels [n, h, w] that the network was not trained on."""
    import numpy as np

    from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example

    examples = [shapes_example(0, FIRST_INDEX[split] + index) for index in range(first, first + count)]
    return tuple(np.stack(arrays) for arrays in zip(*examples, strict=True))


def _at_dusk(images):
    """Little light is left, most of it blue."""
    import numpy as np

    return (images * np.array([0.15, 0.2, 0.35])).astype(np.uint8)


def _score(model, count: int, *, at_dusk: bool = False):
    """The confusion matrix over the first `count` held-out pictures."""
    from deeplab_tf.inference.predict import predict
    from deeplab_tf.network.model import config_of
    from deeplab_tf.ops.metrics import confusion_matrix

    total, classes = 0, config_of(model).num_classes
    for first in range(0, count, _BATCH):
        images, labels = _held_out(first, min(_BATCH, count - first))
        images = _at_dusk(images) if at_dusk else images
        total = total + confusion_matrix(labels, predict(model, images, runtime="tf"), classes)
    return total


def _write_images(folder: files.AnyPath, images) -> list[str]:
    from deeplab_tf.ops.images import write_png

    places = [folder / f"shapes_{number:02d}.png" for number in range(len(images))]
    for place, image in zip(places, images, strict=True):
        write_png(image, place)
    return [str(place) for place in places]


def _sheet(card, images, labels, results, miou: float):
    import io

    import numpy as np
    import PIL.Image

    from deeplab_tf.ops.pictures import IGNORE_COLOUR, blend, colour_mask, picture_sheet

    rows = []
    for image, label, result in zip(images, labels, results, strict=True):
        raw = next(file for file in result.files if file.name.endswith("_raw.png"))
        found = np.array(PIL.Image.open(io.BytesIO(raw.read_bytes())))
        truth = colour_mask(label, card.palette, ignore_label=card.ignore_label)
        rows.append([image, truth, colour_mask(found, card.palette), blend(image, found, card.palette)])
    legend = [*zip(card.class_names, card.palette, strict=True), ("not scored", IGNORE_COLOUR)]
    title = f"Shapes held out from training: mean IoU {miou:.3f}"
    return picture_sheet(rows, column_titles=("picture", "label", "prediction", "overlay"), legend=legend, title=title)


def _write_records(folder: files.AnyPath):
    """Pictures at dusk as TFRecords; of the test split, for the network was trained on the others."""
    import tensorflow as tf

    from deeplab_tf.data import records

    place = folder / records.shard_name("train", 0, 1)
    with files.written(place, flag="--output_dir") as file, tf.io.TFRecordWriter(str(file)) as writer:
        for number, (image, label) in enumerate(zip(*_held_out(0, _DUSK_PICTURES, "test"), strict=True)):
            names = {"filename": f"dusk_{number:03d}", "height": label.shape[0], "width": label.shape[1]}
            encoded = (tf.io.encode_png(array).numpy() for array in (_at_dusk(image), label[..., None]))
            writer.write(records.make_example(*encoded, **names))


def _fine_tune(loaded, folder: files.AnyPath):
    """Trains the converted model for a few seconds on pictures at dusk; returns what came of it."""
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


def main(values: flags.FlagValues) -> None:
    """Runs the demonstration."""
    if values.held_out < 1:
        raise DeepLabError(f"--held_out={values.held_out}: expected a number of at least 1")
    start = time.monotonic()
    options.start_tensorflow()
    folder = files.path(values.output_dir)
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
    images, labels = _held_out(values.held_out, _SHOWN)
    pictures = _write_images(folder / "images", images)
    choice = PredictConfig(resize="none")
    results = list(predict_files(loaded.model, loaded.card, pictures, folder / "predictions", choice))
    print(f"   written to {folder / 'predictions'}")

    print(f"3. Scoring {values.held_out} held-out pictures")
    matrix = _score(loaded.model, values.held_out)
    scores = zip(loaded.card.class_names, iou_per_class(matrix), strict=True)
    print(options.table({name: f"IoU {value:.3f}" for name, value in scores}))
    miou = mean_iou(matrix)
    print(f"   mean IoU {miou:.3f}")

    print("4. Fine-tuning for a few seconds on pictures at dusk")
    before = mean_iou(_score(loaded.model, values.held_out, at_dusk=True))
    tuned = _fine_tune(loaded, folder)
    after = mean_iou(_score(tuned.model, values.held_out, at_dusk=True))
    print(f"   mean IoU on held-out pictures at dusk: {before:.3f} before, {after:.3f} after")

    write_png(_sheet(loaded.card, images, labels, results, miou), folder / "sheet.png")
    print(f"Look at {folder / 'sheet.png'} ({time.monotonic() - start:.0f} s)")


def run(argv=None):
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
