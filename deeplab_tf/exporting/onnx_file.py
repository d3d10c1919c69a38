"""The ONNX file: conversion by tf2onnx, which gets a graph without kernels; they are put into what it makes."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf.config.export import INPUT
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph_weights import ApartGraph

_OPSET = 17
_CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"


def packages() -> tuple[Any, Any]:
    """Returns the packages tf2onnx and onnxruntime; raises DeepLabError if one is not installed."""
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise DeepLabError(f"--format=onnx needs {error.name}: pip install 'deeplab_tf[onnx]'") from None
    return tf2onnx, onnxruntime


def _raise_scales(model: Any) -> None:
    """Raises the scales of the Resize operations of an ONNX model by one float32 step."""
    # tf2onnx writes the size 7 of a resize from 3 as a scale, 7 / 3 rounded to float32. ONNX takes the floor of 3 times
    # that, which may be 6. A scale one step higher gives 7, and with aligned corners the pixel values depend on nothing
    # but the sizes.
    from onnx import numpy_helper

    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant) if constant.name in scales else np.zeros(0, np.float32)
        if values.size:
            raised = np.where(values == np.rint(values), values, np.nextafter(values, np.float32(np.inf)))
            constant.CopyFrom(numpy_helper.from_array(raised, constant.name))


@contextlib.contextmanager
def _one_copy() -> Iterator[None]:
    """Has tf2onnx let errors of its optimisers through: it copies the graph before each of them otherwise."""
    before = os.environ.get(_CATCH_ERRORS)
    os.environ[_CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CATCH_ERRORS]
        else:
            os.environ[_CATCH_ERRORS] = before


def _replace(field: Any, values: Sequence) -> None:
    """Gives a repeated field other values, where they are fewer."""
    if len(values) < len(field):
        del field[:]
        field.extend(values)


def _put_in(model: Any, kernels: Mapping[str, np.ndarray]) -> None:
    """Makes the inputs of an ONNX model that are kernels constants, arranged as the model arranges them."""
    from onnx import helper, numpy_helper

    graph = model.graph
    values = {f"{name}:0": kernel for name, kernel in kernels.items()}
    shapes = {constant.name: constant for constant in graph.initializer}
    _replace(graph.input, [given for given in graph.input if given.name not in values])
    nodes = []
    for node in graph.node:  # which are in the order in which they run
        kernel = values.get(node.input[0]) if node.input else None
        if kernel is not None and node.op_type == "Transpose":
            (order,) = (helper.get_attribute_value(a) for a in node.attribute if a.name == "perm")
            values[node.output[0]] = kernel.transpose(order)
        elif kernel is not None and node.op_type == "Reshape" and node.input[1] in shapes:
            values[node.output[0]] = kernel.reshape(numpy_helper.to_array(shapes[node.input[1]]))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    _replace(graph.node, nodes)
    _replace(graph.initializer, [constant for constant in graph.initializer if constant.name in used])
    _replace(graph.value_info, [info for info in graph.value_info if info.name not in values])
    constants = (numpy_helper.from_array(np.ascontiguousarray(values[name]), name) for name in used & set(values))
    graph.initializer.extend(sorted(constants, key=lambda constant: constant.name))


def write_onnx(graph: ApartGraph, outputs: Sequence[str], path: pathlib.Path) -> None:
    """Writes a graph as ONNX.

    Args:
      graph: from `inference.graph.build_graph`.
      outputs: the names of its tensors that the file gives.
      path: of the file.

    Raises:
      DeepLabError: tf2onnx is not installed.
    """
    tf2onnx, _ = packages()
    names = {"input_names": [f"{name}:0" for name in (INPUT, *graph.kernels)], "output_names": list(outputs)}
    try:
        with _one_copy():
            model, _ = tf2onnx.convert.from_graph_def(graph.graph_def, **names, opset=_OPSET)
    except Exception:  # whatever the optimisers that are passed over otherwise may raise
        model, _ = tf2onnx.convert.from_graph_def(graph.graph_def, **names, opset=_OPSET)
    _raise_scales(model)
    _put_in(model, graph.kernels)
    path.write_bytes(model.SerializeToString())


def name_classes(path: pathlib.Path, names: Sequence[str]) -> None:
    """Adds the names of the classes, a JSON list, to an ONNX file as its metadata `class_names`."""
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    onnx.helper.set_model_props(model, {"class_names": json.dumps(list(names))})
    path.write_bytes(model.SerializeToString())


def without_outputs(path: pathlib.Path, outputs: Sequence[str], smaller: pathlib.Path) -> None:
    """Writes the ONNX file at `path` without outputs that are not among `outputs`, and what only they need."""
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    graph = model.graph
    kept = [output for output in graph.output if output.name in outputs]
    needed, nodes = {output.name for output in kept}, []
    for node in reversed(graph.node):  # which are in the order in which they run
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    _replace(graph.output, kept)
    _replace(graph.node, nodes[::-1])
    _replace(graph.initializer, [constant for constant in graph.initializer if constant.name in needed])
    _replace(graph.value_info, [info for info in graph.value_info if info.name in needed])
    smaller.write_bytes(model.SerializeToString())
