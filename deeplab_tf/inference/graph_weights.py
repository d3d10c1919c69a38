"""A graph apart from its large kernels: TensorFlow, its converters and tf2onnx copy every constant many times."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.tensor_pb2 import TensorProto

# Kernels alone have so many axes. Biases stay in the graph, because converters fuse them, and so do small kernels:
# TensorFlow arranges constants once, and variables in every run.
_AXES = 4
_LEAST_BYTES = 1 << 16
# TensorFlow takes 25 times the memory of the constants of a SavedModel: what is below this stays below a gigabyte.
_MANY_BYTES = 1 << 25
# What stand-ins are filled with, one after the other. Float32 holds these numbers exactly; no scale or offset of a
# network comes near them.
_FIRST_MARK = 3_000_017


def is_large(weight: np.ndarray) -> bool:
    """Returns whether a weight is a kernel that is kept apart."""
    return weight.ndim == _AXES and weight.nbytes >= _LEAST_BYTES


def are_many(weights: Iterable[np.ndarray]) -> bool:
    """Returns whether the weights of a network are so many that TensorFlow had better not copy them as constants."""
    return sum(weight.nbytes for weight in weights) >= _MANY_BYTES


def add_constant(graph_def: GraphDef, name: str, value: TensorProto) -> None:
    """Adds a constant of float32 to a graph."""
    node = graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(value)


@dataclasses.dataclass(frozen=True)
class ApartGraph:
    """A graph with placeholders for its large kernels, and these.

    Attributes:
      graph_def: the graph.
      kernels: float32 arrays [kh, kw, cin, cout], depthwise [kh, kw, c, multiplier], by the names of the placeholders.
    """

    graph_def: GraphDef
    kernels: dict[str, np.ndarray]

    def whole(self) -> GraphDef:
        """Returns the graph with its kernels as constants."""
        return self._filled(lambda name: tf.make_tensor_proto(self.kernels[name]))

    def marked(self) -> tuple[GraphDef, dict[float, np.ndarray]]:
        """Returns a graph in which each kernel is a constant of one number, its mark; and the kernels by these marks.

        Such a constant takes the memory of one number, and converters keep it so through all that they do.
        """
        marks = {name: float(_FIRST_MARK + number) for number, name in enumerate(self.kernels)}
        marked = self._filled(
            lambda name: tf.make_tensor_proto(marks[name], tf.float32, shape=self.kernels[name].shape)
        )
        return marked, {marks[name]: kernel for name, kernel in self.kernels.items()}

    def _filled(self, value_of: Callable[[str], TensorProto]) -> GraphDef:
        filled = GraphDef(versions=self.graph_def.versions)
        for node in self.graph_def.node:
            if node.name in self.kernels:
                add_constant(filled, node.name, value_of(node.name))
            else:
                filled.node.append(node)
        return filled
