"""What a TPU runs is what XLA has kernels for: the operations of the step, traced as it is for XLA, are listed."""

import dataclasses

import pytest
import tensorflow as tf
from step_operations import operations_of, traced_operations
from tensorflow.python.util import pywrap_xla_ops
from test_train_step import small_batch, small_model

from deeplab_tf.config import TrainConfig
from deeplab_tf.training.step import make_train_step

# Not compiled: the graph's own ends, and the call of what is compiled.
_OUTSIDE = frozenset(
    {"Placeholder", "NoOp", "StatefulPartitionedCall", "PartitionedCall", "Identity", "_Arg", "_Retval"}
)
_ON_HOST = frozenset({"PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "PrintV2", "StringFormat", "Assert"})
_ALL = TrainConfig(jit_compile="true", drop_path_keep_prob=0.5)
_CASES = {
    "momentum": ("tiny", {}, _ALL),
    "mined, in parts, adam": (
        "tiny",
        {},
        dataclasses.replace(
            _ALL,
            top_k_percent_pixels=0.5,
            hard_example_mining_step=10,
            gradient_accumulation_steps=2,
            optimizer="adam",
            ema_decay=0.9,
            learning_policy="cosine",
            slow_start_step=5,
            label_weights=(0.5, 1.0, 2.0),
        ),
    ),
    "bfloat16, focal": ("tiny", {}, dataclasses.replace(_ALL, mixed_precision="bfloat16", loss="focal")),
    "float16, dice": ("tiny", {}, dataclasses.replace(_ALL, mixed_precision="float16", loss="dice")),
    "lovasz, shrunk labels": ("tiny", {}, dataclasses.replace(_ALL, loss="lovasz", upsample_logits=False)),
    "frozen, by steps": (
        "tiny",
        {},
        dataclasses.replace(_ALL, freeze="backbone", freeze_steps=5, learning_policy="step"),
    ),
    "pyramid": ("tiny", {"image_pyramid": (0.5, 1.0), "all_scales": True}, _ALL),
    "quantised": ("mobilenet_v2", {"quantize_delay_step": 2}, _ALL),
    "mobilenet_v3": ("mobilenet_v3_small_seg", {}, _ALL),
    "edgetpu": ("mobilenet_edgetpu", {}, _ALL),
    "resnet": ("resnet_v1_50_beta", {"decoder_output_stride": (4,)}, _ALL),
    "xception": ("xception_41", {"decoder_output_stride": (4,)}, _ALL),
    "nas": ("nas_hnasnet", {}, _ALL),
}
_QUICK = ("momentum", "bfloat16, focal")


def unknown_to_xla(kinds: set[str]) -> set[str]:
    """Returns the operations that XLA has no kernels for, neither on CPUs nor GPUs: TPUs share those kernels."""
    known = set(pywrap_xla_ops.get_cpu_kernel_names()) & set(pywrap_xla_ops.get_gpu_kernel_names())
    assert {"Conv2D", "FusedBatchNormV3", "ResourceApplyMomentum"} <= known
    return kinds - known - _OUTSIDE


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.heavy] * (c not in _QUICK)) for c in _CASES])
def test_xla_has_a_kernel_for_each_operation_of_the_step(case):
    variant, options, config = _CASES[case]
    step = make_train_step(small_model(variant, **options), config)
    operations = traced_operations(step, *small_batch())
    kinds = {op.type for op in operations}
    assert {"Conv2D", "FusedBatchNormV3"} <= kinds and len(operations) > 500, "the step itself, not its call"
    assert unknown_to_xla(kinds) == set()
    assert not kinds & _ON_HOST
    assert not [op.name for op in operations for t in op.outputs if t.dtype == tf.string]


def test_a_call_of_the_host_is_found():
    """What the test above would find."""

    @tf.function
    def inner(value):
        return tf.numpy_function(lambda x: x, [value], tf.float32)

    graph = tf.function(lambda value: inner(value) + 1.0).get_concrete_function(tf.TensorSpec([])).graph
    kinds = {op.type for op in operations_of(graph)}
    assert unknown_to_xla(kinds) == kinds & _ON_HOST != set()
