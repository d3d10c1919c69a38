"""The same training step in PyTorch, in a process of its own: torchvision's DeepLab-v3 on the ResNets.

As its users tune it: channels last, autocast, cuDNN's algorithms tried, and for `compiled` torch.compile. Neither
package is among the project's requirements.
"""

import importlib
import importlib.util
from typing import Any

from deeplab_tf.benchmarks import memory
from deeplab_tf.benchmarks.networks import named_network
from deeplab_tf.benchmarks.step_timing import StepSpec, answer, time_steps
from deeplab_tf.errors import DeepLabError

_PACKAGES = ("torch", "torchvision")
_RATE = 1e-3
_MOMENTUM = 0.9
_DECAY = 1e-4
_IGNORED = 255


def missing() -> list[str]:
    """Returns the packages that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


class _Step:
    """Steps of a network on one device.

    Args:
      torch: the package.
      network: on the device, for training.
      spec: what is measured.
      device: cuda or cpu.
    """

    def __init__(self, torch: Any, network: Any, spec: StepSpec, device: str):
        self._torch, self._network, self._device = torch, network, device
        self._half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(spec.precision)
        self._scaler = torch.amp.GradScaler(device, enabled=spec.precision == "float16")
        self._optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY)
        images = torch.rand(spec.batch, 3, *spec.crop, device=device)
        self._images = images.to(memory_format=torch.channels_last)
        self._labels = torch.randint(0, 21, (spec.batch, *spec.crop), device=device)

    def __call__(self) -> Any:
        """Begins a step; returns its loss."""
        torch = self._torch
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device, dtype=self._half or torch.bfloat16, enabled=self._half is not None):
            logits = self._network(self._images)["out"]
            loss = torch.nn.functional.cross_entropy(logits.float(), self._labels, ignore_index=_IGNORED)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()


def multiply_adds(torch: Any, network: Any, crop: tuple[int, int], device: str) -> int:
    """Returns the multiply-adds of a network's convolutions for one image, as `network.cost` counts them."""
    counts = []

    def count(layer: Any, inputs: object, output: Any) -> None:
        del inputs
        counts.append(layer.weight.numel() * output.shape[-2] * output.shape[-1])

    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in convolutions]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, *crop, device=device))
    network.train()
    for hook in hooks:
        hook.remove()
    return sum(counts)


def _peak(torch: Any, device: str) -> float:
    return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else memory.resident("VmHWM")


def _reset(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        memory.reset_peak()


def measure(spec: StepSpec) -> dict[str, Any]:
    """Returns the figures of a step: see `step_speed.measure`.

    Raises:
      DeepLabError: a GPU is asked for, and this PyTorch has none.
    """
    torch: Any = importlib.import_module("torch")
    models: Any = importlib.import_module("torchvision.models")
    heads: Any = importlib.import_module("torchvision.models.segmentation.deeplabv3")
    device = "cuda" if spec.device == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeepLabError(f"PyTorch {torch.__version__} sees no GPU")
    network = named_network(spec.network)
    assert network.counterpart is not None
    rounded = spec.precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounded
    stretched = [False, network.model.output_stride == 8, True]
    backbone = getattr(models, network.counterpart)(weights=None, replace_stride_with_dilation=stretched)
    # torchvision's own functions have the network at output stride 8 alone.
    model = heads._deeplabv3_resnet(backbone, 21, False).to(device).to(memory_format=torch.channels_last)
    counted = multiply_adds(torch, model, spec.crop, device)
    torch.backends.cudnn.benchmark = True
    model.train()
    if spec.compiled:
        model.compile()
    peaks: list[float] = []

    def began() -> None:
        peaks.append(_peak(torch, device))
        _reset(torch, device)

    _reset(torch, device)
    times = time_steps(_Step(torch, model, spec, device), spec.rounds, began=began)
    warm = _peak(torch, device)
    return {
        **times,
        "device": torch.cuda.get_device_name(0) if device == "cuda" else None,
        "multiply_adds": counted,
        "peak_mb": max(*peaks, warm),
        "warm_peak_mb": warm,
        "by": f"PyTorch {torch.__version__}, {'torch.compile' if spec.compiled else 'eager'}",
    }


def main(text: str) -> None:
    """Measures the StepSpec in `text`, and prints the figures."""
    answer(measure, text)
