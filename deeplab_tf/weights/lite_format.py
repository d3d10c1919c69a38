"""TensorFlow's classes of the .tflite file format, and two steps of its converter.

They lie in tensorflow.lite.python, which is not public and will move out of TensorFlow with LiteRT: this is the one
module that imports from it.
"""

import types

import tensorflow as tf


def schema() -> types.ModuleType:
    """Returns the classes of the file format, generated from TensorFlow's schema.fbs."""
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def quantized(content: bytes) -> bytes:
    """Returns a float32 .tflite whose tensors have ranges in eight bits: kernels, and the maps that have one."""
    from tensorflow.lite.python.convert import mlir_quantize

    return mlir_quantize(content)


def with_io_type(content: bytes, kind: tf.DType) -> bytes:
    """Returns an eight-bit .tflite whose input and outputs are of `kind`."""
    from tensorflow.lite.python.util import modify_model_io_type

    return modify_model_io_type(content, kind, kind)
