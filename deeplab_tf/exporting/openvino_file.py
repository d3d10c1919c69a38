"""The OpenVINO IR: the frozen graph as OpenVINO reads it, an .xml with its weights in a .bin beside it."""

import importlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from deeplab_tf.config.export import INPUT, OUTPUTS, Output
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph_weights import ApartGraph
from deeplab_tf.inference.libraries import LIBRARIES, told
from deeplab_tf.weights.exported import weights_beside

_LIBRARY = LIBRARIES["openvino"]


def package() -> Any:
    """Returns the package openvino; raises DeepLabError if it is not installed."""
    if _LIBRARY.missing:
        raise DeepLabError(f"--format=openvino needs {_LIBRARY.name}: pip install 'deeplab_tf[{_LIBRARY.extra}]'")
    return importlib.import_module("openvino")


def write_openvino(graph: ApartGraph, outputs: tuple[Output, ...], path: pathlib.Path) -> None:
    """Writes a graph as OpenVINO IR, with weights of float32, whose input and outputs have the names of the release.

    Args:
      graph: from `inference.graph.build_graph`.
      outputs: what it gives.
      path: of the .xml; the .bin comes beside it.

    Raises:
      DeepLabError: OpenVINO is not installed, or cannot read the graph.
    """
    openvino = package()
    with told(_LIBRARY.name), tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        frozen = pathlib.Path(folder) / "graph.pb"
        frozen.write_bytes(graph.whole().SerializeToString(deterministic=True))
        model = openvino.Core().read_model(frozen)
        model.input(0).get_tensor().set_names({INPUT})
        found = {name.partition(":")[0]: output for output in model.outputs for name in output.get_names()}
        for output in outputs:
            found[OUTPUTS[output]].get_tensor().set_names({OUTPUTS[output]})
        # Whatever the ending is spelled like, these two names are what OpenVINO writes.
        written = path.with_name("graph.xml")
        openvino.save_model(model, written, compress_to_fp16=False)
    written.with_suffix(".bin").replace(weights_beside(path))
    written.replace(path)


def operations(path: Any) -> Iterator[str]:
    """Yields the name of each operation in the IR at `path`."""
    openvino = package()
    model = openvino.Core().read_model(path.read_bytes(), weights_beside(path).read_bytes())
    yield from (operation.get_type_name() for operation in model.get_ops())
