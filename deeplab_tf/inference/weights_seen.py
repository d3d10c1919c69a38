"""Whether a model's weights have changed since they were last looked at, told without reading them all."""

import keras
import numpy as np
import tensorflow as tf


def weight_array(weight: keras.Variable) -> np.ndarray:
    """Returns the value of a weight; on a CPU it shares the variable's memory."""
    variable = weight.value
    if isinstance(variable, tf.Variable) and not isinstance(variable, tf.distribute.DistributedValues):
        # read_value() takes four times as long.
        return np.asarray(tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype))
    return np.asarray(tf.convert_to_tensor(variable))


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # NaN is the same as itself


def _same(old: np.ndarray, new: np.ndarray) -> bool:
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return False
    here = old.__array_interface__["data"] == new.__array_interface__["data"]
    return here or np.array_equal(_bits(old), _bits(new))


class WeightsSeen:
    """The weights of a model as they were last looked at.

    A value that was read from a variable never changes: TensorFlow updates a variable in place only where nothing else
    holds its memory, and gives it other memory where something does. So the arrays that were seen are held, and a
    weight that still has the same memory is the same, by whichever way weights are assigned: Keras, a checkpoint, a
    compiled training step. Only where the memory is another, or cannot be compared because an array is a copy from a
    GPU, are the values themselves compared.

    Args:
      model: a built model, whose weights are looked at.
    """

    def __init__(self, model: keras.Model):
        self._arrays = [weight_array(weight) for weight in model.weights]

    def changed(self, model: keras.Model) -> bool:
        """Looks again; returns whether any weight has another value than the last time.

        Args:
          model: the same as before. It is not kept here, since the model may keep this object.
        """
        before, self._arrays = self._arrays, [weight_array(weight) for weight in model.weights]
        if len(before) != len(self._arrays):
            return True
        return not all(map(_same, before, self._arrays))
