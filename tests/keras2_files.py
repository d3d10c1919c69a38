"""Files as Keras 2's save_weights writes them, made of golden values: for tests of the reader."""

import h5py
import numpy as np
from golden import golden_tensor

_LEAVES = {"kernel": "weights", "depthwise_kernel": "depthwise_weights", "bias": "biases"}


def golden_value(layer, leaf, shape):
    """Returns the value of a variable of a layer, by Keras 2's name of it."""
    return golden_tensor(f"{layer}/{_LEAVES.get(leaf, leaf)}", shape)


def write(path, shapes):
    """Writes golden values of layer -> variable -> shape as Keras 2's save_weights does."""
    with h5py.File(path, "w") as content:
        content.attrs["layer_names"] = [name.encode() for name in ["input_1", *shapes]]
        content.attrs["backend"], content.attrs["keras_version"] = b"tensorflow", b"2.1.5"
        content.create_group("input_1").attrs["weight_names"] = np.zeros(0)
        for layer, variables in shapes.items():
            group = content.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{leaf}:0".encode() for leaf in variables]
            for leaf, shape in variables.items():
                group.create_dataset(f"{layer}/{leaf}:0", data=golden_value(layer, leaf, tuple(shape)))
    return path
