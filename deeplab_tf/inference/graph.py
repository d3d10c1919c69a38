"""The network as it is exported: one graph from uint8 pixels to classes, its weights constants, batch norms folded."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.config.export import INPUT, OUTPUTS, Output
from deeplab_tf.data.transforms import range_size
from deeplab_tf.inference.convolutions import sides_of
from deeplab_tf.inference.folded_graph import InferenceGraph, Weights
from deeplab_tf.inference.graph_weights import ApartGraph, add_constant, are_many, is_large
from deeplab_tf.network.model import MERGED, build_outputs
from deeplab_tf.network.sizes import at_size, logits_stride, needs_fixed_size, padded_size
from deeplab_tf.ops.resizing import (
    resize_bilinear,
    resize_nearest,
    resize_unaligned,
    scale_dimension,
    static_dimensions,
)
from deeplab_tf.ops.upsampling import strip_classes
from deeplab_tf.ops.value_range import limits

GraphDef: TypeAlias = graph_pb2.GraphDef


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What an exported graph computes: `predictor.Predictor`, for images of the sizes that come.

    Attributes:
      config: of the model. Images no larger than its crop_size are padded to it, others to k * output_stride + 1.
      weights: from `read_weights`.
      options: from `ExportConfig.for_path`.
      target: "tensorflow", "tflite" or "onnx" (see inference.convolutions).
      image: of the photographs whose stored values the graph takes and brings to 0..255; None: it takes 0..255.
    """

    config: ModelConfig
    weights: Weights
    options: ExportConfig
    target: str
    image: ImageFacts | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the graph gives."""
        assert self.options.outputs is not None, "expected options from ExportConfig.for_path"
        return self.options.outputs

    @property
    def has_variables(self) -> bool:
        """Whether the large kernels of the graph become variables: those of a SavedModel of a large network."""
        is_saved_model = self.target == "tensorflow" and self.options.format == "saved_model"
        return is_saved_model and are_many(value for layer in self.weights.values() for value in layer.values())

    def __call__(self, images: tf.Tensor, apart: dict[str, np.ndarray] | None = None) -> dict[str, tf.Tensor]:
        """Returns the outputs that options.outputs says, by their names in `OUTPUTS`.

        Args:
          images: [b, h, w, channels], RGB in 0..255 or the values of `image`, any numeric dtype.
          apart: gets the weights, as in `InferenceGraph`.

        Returns:
          predictions int32 [b, h, w]; probabilities float32 [b, h, w, classes]; logits float32 [b, h, w, classes], or
          [b, h', w', classes] at the network's stride for export_upsample none.
        """
        size, pixels = sides_of(images), self._resized(self._scaled(tf.cast(images, tf.float32)))
        inner = sides_of(pixels)
        padded = self._padded(pixels, inner)
        maps, outputs = self._maps(padded, apart), {}
        for output in self.outputs:
            result = maps[output]
            if not (output == "logits" and self.options.export_upsample == "none"):
                result = result if padded is pixels else result[:, : inner[0], : inner[1]]
                resize = resize_nearest if output == "predictions" else resize_bilinear
                result = result if self.options.min_resize_value is None else resize(result, size)
            outputs[OUTPUTS[output]] = tf.identity(result, name=OUTPUTS[output])
        return outputs

    def _scaled(self, values: tf.Tensor) -> tf.Tensor:
        """Returns stored values in 0..255, as `ops.value_range.scaled` computes them."""
        if self.image is None or self.image.is_byte:
            return values
        low, distance = limits(self.image)
        result = (values - low) / distance * 255.0
        result = tf.where(tf.equal(result, result), result, 0.0)  # not a number
        return tf.minimum(tf.maximum(result, 0.0), 255.0)

    def _resized(self, pixels: tf.Tensor) -> tf.Tensor:
        options = self.options
        if options.min_resize_value is None:
            return pixels
        size = range_size(
            *sides_of(pixels),
            minimum=options.min_resize_value,
            maximum=options.max_resize_value,
            factor=options.resize_factor,
        )
        return resize_bilinear(pixels, size)

    def _padded(self, pixels: tf.Tensor, inner: Sequence[Any]) -> tf.Tensor:
        known = all(isinstance(side, int) for side in inner)
        target = list(padded_size(self.config, *inner)) if known else self._padded_size(*inner)
        if known and tuple(inner) == tuple(target):
            return pixels
        # tf.pad has one value for all channels: zeros, around what the pixels have above the padding's colour.
        colour = tf.constant(self.config.pad_pixel, tf.float32)
        missing = [[0, new - old] for new, old in zip(target, inner, strict=True)]
        padded = tf.pad(pixels - colour, [[0, 0], *missing, [0, 0]]) + colour
        return (
            tf.ensure_shape(padded, [None, *target, self.config.input_channels])
            if needs_fixed_size(self.config)
            else padded
        )

    def _padded_size(self, height: Any, width: Any) -> list[Any]:
        """Returns the `padded_size` of a size that is known only when the graph runs."""
        crop, stride = self.config.crop_size, self.config.output_stride
        if needs_fixed_size(self.config):
            assert crop is not None
            return list(crop)
        sides = [(side + stride - 2) // stride * stride + 1 for side in (height, width)]
        if not crop:
            return sides
        fits = tf.logical_and(height <= crop[0], width <= crop[1])
        return [tf.where(fits, fixed, side) for fixed, side in zip(crop, sides, strict=True)]

    def _maps(self, images: tf.Tensor, apart: dict[str, np.ndarray] | None) -> dict[str, tf.Tensor]:
        """All outputs at the size of the (padded) images; what is not asked for is dropped with the dead ends."""
        config = self.config
        graph = InferenceGraph(
            self.weights,
            target=self.target,
            quantized=config.quantized,
            as_file=config.quantize_as_file,
            aligned=config.align_corners,
            products=self.has_variables,
            apart=apart,
        )
        size = sides_of(images)
        if self.options.averages:
            probabilities = self._averaged(graph, images, size)
            return {"predictions": _classes(probabilities, self.target), "probabilities": probabilities}
        small = self._logits(graph, images, pyramid=self.config.image_pyramid)
        resize = resize_bilinear if config.align_corners else resize_unaligned
        full = resize(small, size)
        logits = small if self.options.export_upsample == "none" else full
        if self.config.prediction_with_upsampled_logits:
            classes, probabilities = self._upsampled_classes(small, full), tf.nn.softmax(full)
        else:
            classes = resize_nearest(_classes(small, self.target), size)
            probabilities = resize(tf.nn.softmax(small), size)
        return {"predictions": classes, "probabilities": probabilities, "logits": logits}

    def _upsampled_classes(self, small: tf.Tensor, full: tf.Tensor) -> tf.Tensor:
        if self.target == "tflite" and self.config.align_corners:
            height, width = static_dimensions(full, 1, 2)
            if (classes := strip_classes(small, (height, width))) is not None:
                return classes
        return _classes(full, self.target)

    def _logits(
        self, graph: InferenceGraph, images: tf.Tensor, scale: float = 1.0, pyramid: tuple[float, ...] | None = None
    ) -> tf.Tensor:
        height, width = images.shape[1:3]
        size = None if height is None or width is None else (height, width)
        config = at_size(self.config, size, scale=scale, pyramid=pyramid)
        return build_outputs(graph, images, config)[MERGED]

    def _averaged(self, graph: InferenceGraph, images: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
        """Returns the probabilities averaged over scales and flips, as in `Predictor`."""
        inference = self.options.inference
        maps = []
        for scale in inference.scales:
            inputs = images if scale == 1.0 else resize_bilinear(images, [scale_dimension(d, scale) for d in size])
            canvas = [scale_dimension(d, max(1.0, scale) / logits_stride(self.config)) for d in size]
            for flip in (False, True) if inference.flip else (False,):
                logits = self._logits(graph, tf.reverse(inputs, [2]) if flip else inputs, scale)
                logits = resize_bilinear(logits, canvas)
                logits = tf.reverse(logits, [2]) if flip else logits
                resize = resize_bilinear if self.config.align_corners else resize_unaligned
                maps.append(tf.nn.softmax(resize(logits, size)))
        return tf.add_n(maps) / len(maps)


def _classes(scores: tf.Tensor, target: str) -> tf.Tensor:
    if target == "tensorflow":  # the same classes in two thirds of the time
        return tf.math.top_k(scores, 1, sorted=False).indices[..., 0]
    return tf.argmax(scores, axis=-1, output_type=tf.int32)


def build_graph(segmentation: Segmentation, shape: Sequence[int | None], dtype: tf.DType = tf.uint8) -> ApartGraph:
    """Returns the graph of `segmentation` with nothing in it but what its outputs need.

    Args:
      segmentation: what to compute.
      shape: of the images [b, h, w, 3]; None where it is open.
      dtype: of the images.

    Returns:
      A graph without variables or functions, whose input is "ImageTensor:0" and whose outputs are called as in OUTPUTS.
      Its large kernels are apart from it, unless TensorFlow runs it with constants.
    """
    # TensorFlow copies a constant several times on its way into a graph, and half of them are in dead ends: kernels
    # without the norm that is folded into them. So the weights come in last.
    apart: dict[str, np.ndarray] = {}
    signature = [tf.TensorSpec(shape, dtype, name=INPUT)]
    run = tf.function(lambda images: segmentation(images, apart), input_signature=signature, autograph=False)
    whole = run.get_concrete_function().graph.as_graph_def()
    nodes = {node.name: node for node in whole.node}
    needed, waiting = {INPUT}, collections.deque(OUTPUTS[output] for output in segmentation.outputs)
    while waiting:
        name = waiting.popleft()
        if name not in needed:
            needed.add(name)
            waiting.extend(source.lstrip("^").partition(":")[0] for source in nodes[name].input)
    graph_def = GraphDef(versions=whole.versions)
    is_whole = segmentation.target == "tensorflow" and not segmentation.has_variables
    large = {name: weight for name, weight in apart.items() if name in needed and is_large(weight)}
    kernels = {} if is_whole else large
    for node in whole.node:
        if node.name in apart and node.name in needed and node.name not in kernels:
            add_constant(graph_def, node.name, tf.make_tensor_proto(apart[node.name]))
        elif node.name in needed:
            graph_def.node.append(node)
    apart.clear()  # which the traced function holds until its cycles are collected
    return ApartGraph(graph_def, kernels)


def build_graph_def(segmentation: Segmentation, shape: Sequence[int | None], dtype: tf.DType = tf.uint8) -> GraphDef:
    """Returns the graph of `build_graph` with its kernels in it, as constants."""
    return build_graph(segmentation, shape, dtype).whole()


def tensor_names(outputs: Sequence[Output]) -> list[str]:
    """Returns the names of the tensors of `outputs` (predictions, probabilities, logits) in an exported graph."""
    return [f"{OUTPUTS[output]}:0" for output in outputs]


def as_function(
    graph_def: GraphDef, outputs: Sequence[Output], variables: Mapping[str, tf.Variable] | None = None
) -> Any:
    """Returns `graph_def` as a tf.function: from its input, images [b, h, w, 3], to {name: output}.

    variables: those that take the places of other placeholders, by their names; the caller keeps them.
    """
    attributes = next(node.attr for node in graph_def.node if node.name == INPUT)
    shape, dtype = tf.TensorShape(attributes["shape"].shape), attributes["dtype"].type

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name=INPUT)], autograph=False)
    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        names, given = tensor_names(outputs), {INPUT: images}
        given |= {name: tf.convert_to_tensor(variable) for name, variable in (variables or {}).items()}
        places = {f"{name}:0": value for name, value in given.items()}
        results = tf.graph_util.import_graph_def(graph_def, places, names, name="")
        return {name.removesuffix(":0"): value for name, value in zip(names, results, strict=True)}

    return run
