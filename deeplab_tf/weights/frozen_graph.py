"""The constants of a frozen graph, a GraphDef that holds its weights."""

import math
from collections.abc import Collection

import numpy as np
import tensorflow as tf

_MOST_REPEATED = 1 << 26  # values of a graph; where all values of a constant are equal, one stands for them


def _repeated(node: tf.compat.v1.NodeDef) -> int:
    """Returns how many values a constant has that its node does not hold one by one."""
    proto = node.attr["value"].tensor
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise ValueError(f"{node.name!r} has the shape {sizes}")
    count = math.prod(sizes)
    return 0 if proto.tensor_content or len(proto.float_val) == count else count


def read_frozen(content: bytes, leaves: Collection[str]) -> dict[str, np.ndarray]:
    """Returns name -> value of the constants whose names end in "/" and one of `leaves`.

    Raises:
      ValueError: the graph has two nodes of one name, an absurd shape, or few values that are to be repeated without
        end.
      DecodeError, RecursionError, TypeError, LookupError: it is no graph, or damaged.
    """
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(content)
    seen: set[str] = set()
    for node in graph.node:
        if node.name in seen:
            raise ValueError(f"the node {node.name!r} is there twice")
        seen.add(node.name)
    nodes = [node for node in graph.node if node.op == "Const" and node.name.rpartition("/")[2] in leaves]
    if sum(map(_repeated, nodes)) > _MOST_REPEATED:
        raise ValueError(f"few values are to be repeated into more than {_MOST_REPEATED}")
    return {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in nodes}
