"""The kernels of a graph apart from it: TensorFlow, its converters and tf2onnx copy every constant many times."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

# Kernels alone have so many axes. Biases stay, because converters fuse them, and so do small kernels: TensorFlow
# arranges constants once, and variables in every run.
_AXES = 4
_LEAST_BYTES = 1 << 16
# What stand-ins are filled with, one after the other. Float32 holds these numbers exactly; no scale or offset of a
# network comes near them.
_FIRST_MARK = 3_000_017


def _large_kernels(graph_def: GraphDef) -> dict[str, np.ndarray]:
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph_def.node
        if node.op == "Const"
        and node.attr["dtype"].type == tf.float32.as_datatype_enum
        and len(node.attr["value"].tensor.tensor_shape.dim) == _AXES
        and len(node.attr["value"].tensor.tensor_content) >= _LEAST_BYTES
    }


def _replaced(
    graph_def: GraphDef, names: Mapping[str, object], replace: Callable[[NodeDef, NodeDef], None]
) -> GraphDef:
    """Returns the graph with an empty node in the place of each of `names`, which `replace` fills from the old one."""
    bare = GraphDef(versions=graph_def.versions)
    for node in graph_def.node:
        if node.name in names:
            replace(bare.node.add(name=node.name), node)
        else:
            bare.node.append(node)
    return bare


def weights_apart(graph_def: GraphDef) -> tuple[GraphDef, dict[str, np.ndarray]]:
    """Returns a graph with placeholders for its large kernels, and these by the names of the placeholders.

    graph_def: from `inference.graph.build_graph_def`; it stays as it is.
    """
    kernels = _large_kernels(graph_def)

    def replace(place: NodeDef, constant: NodeDef):
        place.op = "Placeholder"
        place.attr["dtype"].type = constant.attr["dtype"].type
        place.attr["shape"].shape.CopyFrom(constant.attr["value"].tensor.tensor_shape)

    return _replaced(graph_def, kernels, replace), kernels


def marked(graph_def: GraphDef) -> tuple[GraphDef, dict[float, np.ndarray]]:
    """Returns a graph in which each large kernel is of one number, its mark; and the kernels by these marks.

    Such a constant takes the memory of one number, and converters keep it so through all that they do.

    graph_def: from `inference.graph.build_graph_def`; it stays as it is.
    """
    kernels = _large_kernels(graph_def)
    marks = {name: float(_FIRST_MARK + number) for number, name in enumerate(kernels)}

    def replace(place: NodeDef, constant: NodeDef):
        place.op = "Const"
        place.attr["dtype"].type = constant.attr["dtype"].type
        tensor = place.attr["value"].tensor
        tensor.dtype = constant.attr["dtype"].type
        tensor.tensor_shape.CopyFrom(constant.attr["value"].tensor.tensor_shape)
        tensor.float_val.append(marks[constant.name])

    return _replaced(graph_def, kernels, replace), {marks[name]: kernel for name, kernel in kernels.items()}
