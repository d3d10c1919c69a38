"""The SavedModel: how it is written, and the operations it holds.

The kernels of a large network are variables: TensorFlow copies constants into every function and into every step of its
optimisation, which took 25 times the memory of the weights.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from deeplab_tf import files
from deeplab_tf.config.export import LABEL_BEYOND, Output
from deeplab_tf.filesystems.remote_errors import os_errors
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.graph_weights import ApartGraph


def _of_encoded(segment: Any) -> Any:
    """Returns a tf.function of encoded images (string [b]), from the tf.function `segment` of pixels.

    Each image is decoded and run by itself, because their sizes may differ.
    """
    specs = segment.get_concrete_function().structured_outputs
    ragged = {n: tf.RaggedTensorSpec([None, None, *s.shape[3:]], s.dtype, ragged_rank=1) for n, s in specs.items()}

    def run_one(content: tf.Tensor) -> tuple[dict[str, Any], tf.Tensor]:
        # decode_jpeg reads PNG too, and with this method gives the same pixels as Pillow.
        image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        # A loop over images of several sizes can only collect ragged tensors; they are padded once all sizes are known.
        ragged_tensor: Any = tf.RaggedTensor
        maps = {name: ragged_tensor.from_tensor(value[0]) for name, value in segment(image[None]).items()}
        return maps, tf.shape(image)[:2]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def run(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        maps, sizes = tf.map_fn(run_one, image_bytes, fn_output_signature=(ragged, tf.TensorSpec([2], tf.int32)))
        dense = {n: m.to_tensor(default_value=LABEL_BEYOND if m.dtype == tf.int32 else 0) for n, m in maps.items()}
        return {**dense, "sizes": sizes}

    return run


def write_saved_model(graph: ApartGraph, outputs: tuple[Output, ...], path: pathlib.Path) -> None:
    """Writes a graph as a SavedModel whose signatures are serving_default, of pixels, and image_bytes, of files.

    Args:
      graph: from `inference.graph.build_graph`; its kernels are taken out of it, one after the other.
      outputs: what it gives.
      path: the folder to make.
    """
    module: Any = tf.Module()
    variables = {}
    for name in tuple(graph.kernels):
        variables[name] = tf.Variable(tf.convert_to_tensor(graph.kernels.pop(name)), trainable=False, name=name)
    module.kernels = list(variables.values())  # not by their names, which attributes cannot have
    module.segment = as_function(graph.graph_def, outputs, variables)
    signatures = {"serving_default": module.segment}
    images = module.segment.input_signature[0]
    if images.dtype == tf.uint8 and images.shape[-1] == 3:  # other photographs have no encoding that TensorFlow reads
        module.segment_encoded = _of_encoded(module.segment)
        signatures["image_bytes"] = module.segment_encoded
    with os_errors():  # TensorFlow's own for a full disk and the like
        tf.saved_model.save(module, str(path), signatures=signatures)


def operations_of(path: files.AnyPath) -> Iterator[str]:
    """Yields the name of each operation in the SavedModel at `path`."""
    (graph,) = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    yield from (node.op for node in nodes)
