r"""Exports a model, as SavedModel, frozen graph, TFLite, ONNX or OpenVINO, with a certificate that it does the same.

  deeplab-tf export --checkpoint_path=models/xception65 --export_path=out/saved_model
  deeplab-tf export --checkpoint_path=models/mnv2 --export_path=out/mnv2.tflite --crop_size=257,257 --precision=int8 \
    --representative_images=photos --images=photos
  deeplab-tf export --checkpoint_path=model.ckpt --export_path=out/frozen_inference_graph.pb

The flags are those of the release's export_model.py, and more. The file is run on pictures and compared with the model;
if they do not agree in enough pixels (--min_agreement), nothing is written.
"""

import textwrap
from collections.abc import Sequence

from absl import flags

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import ShortageError, is_out_of_memory, what_was_asked
from deeplab_tf.tools import help_pages, options, retired

_LITE = ("precision", "export_upsample", "uint8_io")
_USES: tuple[options.Use[ExportConfig], ...] = (
    options.Use(_LITE, "--format=tflite", lambda choice: choice.format == "tflite"),
)


_FIRST = (
    "checkpoint_path",
    "export_path",
    "format",
    "precision",
    "crop_size",
    "output_stride",
    "representative_images",
    "images",
    "min_agreement",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    options.define_path(values, "checkpoint_path", None, options.CHECKPOINT_HELP)
    flags.DEFINE_alias("checkpoint", "checkpoint_path", flag_values=values)
    text = "file to write (.pb, .tflite, .onnx, .xml), or folder to make; neither may exist yet"
    options.define_path(values, "export_path", None, text)
    options.define_flags(values, ExportConfig)
    options.define_flags(values, ModelConfig)
    options.define_retired(values, retired.EXPORT)
    help_pages.put_first(values, _FIRST)


def _percent(share: float) -> str:
    return f"{100 * share:.4f} %"


def summary(certificate: dict) -> dict[str, object]:
    """Returns the rows of the printed table of a certificate."""
    amount = f"{certificate['pixels']} pixels, {certificate['images']} images"
    timing = certificate["latency"]
    scores = certificate["miou"]
    stride = certificate["output_stride"]
    return {
        "agreement with the Keras model": f"{_percent(certificate['agreement'])} of {amount}",
        "at least": _percent(certificate["min_agreement"]),
        "largest probability difference": certificate["largest_probability_difference"],
        "largest margin of a changed pixel": certificate["largest_margin_of_a_changed_pixel"],
        "mIoU": scores and f"Keras {scores['keras']:.4f}, exported {scores['exported']:.4f}",
        "size": f"{certificate['bytes'] / 1e6:.2f} MB",
        "latency": f"{timing['median_ms']} ms at {timing['size'][0]} x {timing['size'][1]} ({certificate['machine']})",
        "output stride": f"{stride['exported']} ({stride['from']})",
        **({"MediaPipe": certificate["mediapipe"]} if "mediapipe" in certificate else {}),
        "versions": ", ".join(f"{name} {version}" for name, version in certificate["versions"].items()),
    }


def _shortage(error: Exception, network: ModelConfig, choice: ExportConfig) -> str:
    """Returns the line for a shortage of memory, with what the export needs less of it with."""
    from deeplab_tf.exporting.export import RELEASE_CROP
    from deeplab_tf.network.sizes import halved

    smaller = halved(network.crop_size or RELEASE_CROP, network.output_stride)
    cures = [f"--crop_size={smaller[0]},{smaller[1]}"]
    if max(choice.inference_scales) > 1:
        kept = ",".join(f"{scale:g}" for scale in choice.inference_scales if scale <= 1)
        cures.append(f"--inference_scales={kept or 1}")
    if choice.images:
        cures.append("smaller --images")
    return f"not enough memory for the export ({what_was_asked(error)}); try {' or '.join(cures)}"


def main(values: flags.FlagValues) -> None:
    """Exports the model and prints its configuration and the certificate."""
    options.require(values, "checkpoint_path", "export_path")
    asked = ExportConfig(**options.given(values, ExportConfig))
    choice = asked.for_path(values.export_path)
    options.require_use(values, _USES, choice)
    changes = options.given(values, ModelConfig)
    options.start_tensorflow()
    options.tell_exactness(optional=False)
    from deeplab_tf.exporting.export import export_opened, open_for_export
    from deeplab_tf.exporting.target import target_of

    target_of(values.export_path, choice).check()
    opened = open_for_export(values.checkpoint_path, changes)
    card = opened.loaded.card
    choice = asked.for_path(values.export_path, card.config)
    rows = {"checkpoint": values.checkpoint_path, **card.config.to_json(), "num_classes": card.config.num_classes}
    rows |= {"output_stride": f"{card.config.output_stride} ({opened.stride_from})", "dataset": card.dataset}
    rows |= {"format": choice.format, "outputs": choice.outputs, "precision": choice.precision}
    print(f"Configuration\n{options.table(rows)}")
    for note in [*options.retired_notes(values, retired.EXPORT), *opened.loaded.notes]:
        print(f"Note: {note}")
    try:
        with options.silenced():  # the converters' log lines are noise
            certificate = export_opened(opened, values.export_path, asked)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ShortageError(_shortage(error, card.config, choice)) from None
    print(f"Certificate\n{options.table(summary(certificate))}")
    operations = ", ".join(f"{name} {count}" for name, count in certificate["operations"].items())
    print(textwrap.fill(f"Operations: {operations}", 100, subsequent_indent="  "))
    print(f"Written: {values.export_path}")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
