r"""Converts a network of quantised training to an 8-bit TFLite, with the flags of the release's convert_to_tflite.py.

  deeplab-tf convert-to-tflite --quantized_graph_def_path=out/frozen_inference_graph.pb \
    --input_tensor_name=MobilenetV2/MobilenetV2/input:0 --output_tflite_path=out/frozen_inference_graph.tflite \
    --test_image_path=street.jpg

It is `export` with --precision=int8, for command lines of the release. The graph may be one that `export` has written
from a network of --quantize_delay_step, whose ranges the file takes, a model directory, or any other weights: those
that hold no ranges, as the release's frozen graphs, need --representative_images. The file takes uint8 pixels and gives
classes. It is compared with the network on the test image, and not written if they agree too little.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import export_model, help_pages, options, retired

_OUTPUTS = ("ArgMax", "SemanticPredictions")
# Field of ExportConfig -> flag; the release's conversion has no other choice.
_KEPT = {"images": "test_image_path", "representative_images": "representative_images"}
_KEPT |= {"num_images": "num_images", "min_agreement": "min_agreement"}
NAMES: Mapping[str, str | None] = {**dict.fromkeys(f.name for f in dataclasses.fields(ExportConfig)), **_KEPT}
_FIRST = (
    "quantized_graph_def_path",
    "input_tensor_name",
    "output_tensor_name",
    "output_tflite_path",
    "test_image_path",
    "representative_images",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "what to convert: a frozen graph that export has written, a model directory, or other weights"
    options.define_path(values, "quantized_graph_def_path", None, text, named=True)
    text = "output of the graph: classes, ArgMax:0; scores are what export --export_upsample gives (default: ArgMax:0)"
    flags.DEFINE_string("output_tensor_name", "ArgMax:0", text, flag_values=values)
    options.define_path(values, "output_tflite_path", None, "file to write, a .tflite; it may not exist yet")
    options.define_flags(values, ExportConfig, NAMES)
    options.define_flags(values, ModelConfig)
    options.define_retired(values, retired.TFLITE)
    help_pages.put_first(values, _FIRST)


def _require_classes(name: str) -> None:
    if name.rpartition("/")[2].partition(":")[0] not in _OUTPUTS:
        raise DeepLabError(
            f"--output_tensor_name={name}: expected ArgMax:0, classes; for scores, deeplab-tf export "
            "--precision=int8 --export_upsample=logits"
        )


def main(values: flags.FlagValues) -> None:
    """Converts the graph, and prints the certificate: the share of equal pixels, differences, size."""
    options.require(values, "quantized_graph_def_path", "output_tflite_path")
    _require_classes(values.output_tensor_name)
    path = values.output_tflite_path
    if pathlib.PurePath(path).suffix.lower() != ".tflite":
        raise DeepLabError(f"--output_tflite_path={path}: expected a name that ends in .tflite")
    choice = ExportConfig(
        precision="int8", export_upsample="argmax", **options.given(values, ExportConfig, NAMES)
    ).for_path(path)
    options.start_tensorflow()
    options.tell_exactness(optional=False)
    from deeplab_tf.exporting.export import export_opened
    from deeplab_tf.exporting.reopening import open_behind
    from deeplab_tf.exporting.target import target_of

    target_of(path, choice, flag="--output_tflite_path").check()
    opened = open_behind(values.quantized_graph_def_path, options.given(values, ModelConfig))
    card = opened.loaded.card
    learned = card.config.quantized
    if not learned and not choice.representative_images:
        raise DeepLabError(
            f"{values.quantized_graph_def_path}: holds no ranges of quantised training that can be read; give "
            "--representative_images, about a hundred images like those to come"
        )
    rows = {"graph": values.quantized_graph_def_path, **card.config.to_json(), "num_classes": card.config.num_classes}
    rows |= {"output_stride": f"{card.config.output_stride} ({opened.stride_from})"}
    rows |= {"ranges": "of quantised training" if learned else "of --representative_images"}
    print(f"Configuration\n{options.table(rows)}")
    for note in [*options.retired_notes(values, retired.TFLITE), *opened.loaded.notes]:
        print(f"Note: {note}")
    with options.silenced():  # the converters' log lines are noise
        certificate = export_opened(opened, path, choice)
    print(f"Certificate\n{options.table(export_model.summary(certificate))}")
    print(f"Written: {path}")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
