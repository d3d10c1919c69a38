"""The weights of a float .tflite of the release, by the names of its tensors."""

import numpy as np

from deeplab_tf.arch import ARCHITECTURES, head
from deeplab_tf.arch.units import HEAD_BATCH_NORM
from deeplab_tf.weights.lite_format import schema
from deeplab_tf.weights.lite_weights import FOLDED, LiteWeights, unit_norm

_LEAVES = ("weights", "biases", "depthwise_weights", "pointwise_weights", "Conv2D_bias", "depthwise_bias")


def _constants(content: bytes) -> dict[str, np.ndarray]:
    """Returns the float32 constants under the release's names; none where the file has any of another type."""
    constants: dict[str, np.ndarray] = {}
    model = schema().Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        buffer = model.Buffers(tensor.Buffer())
        name = tensor.Name().decode()
        if not buffer.DataLength() or name.rpartition("/")[2] not in _LEAVES:
            continue
        if tensor.Type() != schema().TensorType.FLOAT32:
            return {}
        constants[name] = buffer.DataAsNumpy().view("<f4").reshape(tensor.ShapeAsNumpy())
    return constants


def _epsilon(scope: str) -> float:
    """Returns the epsilon of the batch norm in `scope`."""
    for architecture in ARCHITECTURES.values():
        if architecture.batch_norm and scope.startswith(f"{architecture.scope}/"):
            return architecture.batch_norm.epsilon
    return HEAD_BATCH_NORM.epsilon


def read_named(content: bytes) -> LiteWeights | None:
    """Returns what the tensors' names tell of a .tflite; None if they are not the release's, or not all float32.

    The batch norms are folded into kernels and biases; gamma 1, beta the bias, mean 0 and variance 1 - epsilon make
    batch norms that change nothing else.

    Raises:
      Any of `lite_weights.READ_ERRORS`: the file is damaged.
    """
    constants = _constants(content)
    has_logits = any(name.partition("/")[0] == head.LOGITS for name in constants)
    biased = head.BIASED if has_logits else head.BIASED | head.BIASED_WITHOUT_LOGITS
    arrays: dict[str, np.ndarray] = {}
    for name, value in constants.items():
        scope, _, leaf = name.rpartition("/")
        if not leaf.endswith("_bias"):
            if value.ndim != 4:
                raise ValueError(f"{name!r} has {value.ndim} dimensions; expected 4")
            # [cout, kh, kw, cin], depthwise [1, kh, kw, c]
            arrays[name] = np.ascontiguousarray(value.transpose(1, 2, 3, 0))
        elif biased.isdisjoint(scope.split("/")):
            arrays |= unit_norm(f"{scope}/BatchNorm", value, _epsilon(scope))
        else:
            arrays[f"{scope}/biases"] = value
    return LiteWeights(arrays, {}, (FOLDED,)) if arrays else None
