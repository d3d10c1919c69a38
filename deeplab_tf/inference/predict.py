"""Segmenting images: `predict` on arrays, `predict_files` on files, folders, globs and standard input."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from deeplab_tf.config import RUNTIMES, Inference
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.network.wrapped import config_of


def predict(
    model: keras.Model,
    images: np.ndarray,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    crf: Mapping[str, float] | None = None,
    runtime: str = "auto",
) -> np.ndarray:
    """Returns the class maps of images, at their size.

    Each image is padded bottom right with the variant's mean pixel to the model's crop_size, or where that is unset or
    too small to k * output_stride + 1; the logits are upsampled with aligned corners; the padding is cut off. With
    several scales or flips, softmax probabilities at full size are averaged. Unlike the release, `flip` also counts
    where the only scale is 1.

    While the network runs, TensorFlow's switch for TensorFloat-32 is off, so that a GPU gives the published pixels too;
    calling the model itself leaves the switch as it is, and TensorFlow's default is on.

    Args:
      model: from `build_model` or `load`, also one that Keras has loaded, cloned, or wrapped in a model that adds
        softmax and upsampling at most: the network in it is run.
      images: [b, h, w, 3], RGB in 0..255, or as many bands as the model reads; any numeric dtype.
      scales: of the input, for instance (0.5, 0.75, 1.0, 1.25, 1.5, 1.75).
      flip: also run on the mirrored images.
      crf: refine each picture by `crf.densecrf` with these arguments ({}: the defaults); None: do not.
      runtime: tf, tf_frozen, tflite (LiteRT), onnx, openvino, or auto: what `runtime.runtime_predictor` finds to be the
        fastest; it gives the same classes but for pixels between two classes that float32 cannot tell apart.

    Returns:
      int32 [b, h, w], class indices.

    Raises:
      DeepLabError: `images` is not of that shape, a scale is not above 0, an unknown runtime or one that is not
        installed, or `model` was not made here.

    Example:
    >>> import numpy as np
    >>> model = deeplab_tf.build_model(deeplab_tf.ModelConfig(model_variant="tiny", num_classes=3))
    >>> labels = deeplab_tf.predict(model, np.zeros((2, 40, 60, 3), np.uint8), flip=True, runtime="tf")
    >>> labels.shape, labels.dtype.name
    ((2, 40, 60), 'int32')
    """
    images, inference = np.asarray(images), Inference(tuple(scales), flip, crf=crf)
    bands = config_of(model).input_channels
    if images.ndim != 4 or images.shape[-1] != bands or 0 in images.shape:
        kind = "RGB" if bands == 3 else f"{bands} bands"
        raise DeepLabError(f"images of shape {images.shape}: expected [b, h, w, {bands}], {kind} in 0..255")
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    chosen = runtime_predictor(model, runtime, pixels=images.size // bands)
    return chosen.labels(images, inference)
