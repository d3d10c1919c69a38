"""The benchmark of training steps on a device: its rows and table, PyTorch's side by a stand-in, what is refused."""

import contextlib
import json
import math
import subprocess
import sys
import types

import numpy as np
import pytest
from commands import finished, one_line

from deeplab_tf.benchmarks import networks, step_speed, step_speed_table, step_timing, tensorflow_step, torch_step
from deeplab_tf.benchmarks.peaks import PEAKS, share_of_peak
from deeplab_tf.benchmarks.step_speed import StepBenchmark
from deeplab_tf.benchmarks.step_timing import StepSpec
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import benchmark

SPEC = StepSpec("resnet_v1_50", "float32", "cpu", 2, (65, 65), 3)
FOUND = {"by": "TensorFlow 2", "device": None, "multiply_adds": 5_000_000_000, "step_s": [0.2, 0.1, 0.4]}
FOUND |= {"first_step_s": 9.0, "peak_mb": 700.0, "warm_peak_mb": 600.0}


@pytest.fixture
def answers(monkeypatch):
    """Stands in for the processes: answers by program and network; returns what was asked."""
    asked = []

    def run(program: str, spec: StepSpec) -> dict:
        asked.append((program, spec.network, spec.precision, spec.compiled))
        if spec.network == "xception_65":
            return {"error": "not enough memory (a | b)"}
        name = "PyTorch 9, torch.compile" if spec.compiled else "PyTorch 9, eager"
        return FOUND if program == "tensorflow_step" else {**FOUND, "by": name, "step_s": [0.4]}

    monkeypatch.setattr(step_speed, "_run", run)
    monkeypatch.setattr(torch_step, "missing", list)
    return asked


# ---- the command


def test_steps_are_reported(answers, tmp_path, capsys):
    file = tmp_path / "figures.json"
    given = ["--networks=resnet_v1_50,xception_65,tiny", "--train_batch_size=2", "--crop=65x97", f"--json={file}"]
    assert finished(benchmark, "--what=train_step", "--device=cpu", *given) == 0
    assert answers == [
        ("tensorflow_step", "resnet_v1_50", "float32", False),
        ("torch_step", "resnet_v1_50", "float32", False),
        ("torch_step", "resnet_v1_50", "float32", True),
        ("tensorflow_step", "xception_65", "float32", False),
        ("tensorflow_step", "tiny", "float32", False),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Training steps on CPU, batch 2 at 65 x 97, batches that lie there already"
    assert printed[4].startswith(
        "| resnet_v1_50 | float32 | TensorFlow 2 | 10.00 | 200.0 (125.0 to 350.0) | no figure for"
    )
    assert printed[4].endswith("| 5.0 | 700, 600 | 9.0 |")
    assert printed[7] == (
        "| xception_65 | float32 | TensorFlow | not measured: not enough memory (a \\| b) | | | | | |"
    )
    assert printed[10:12] == [
        "* resnet_v1_50, float32: 2.00 of the images/s of PyTorch 9, eager",
        "* resnet_v1_50, float32: 2.00 of the images/s of PyTorch 9, torch.compile",
    ]
    assert "| figure | measured |" not in printed
    row, *_, failed, last = json.loads(file.read_text())["figures"]["train_step"]
    assert (row["images_per_s"], row["step_ms"], row["size"], row["batch"]) == (10.0, 200.0, [65, 97], 2)
    assert row["tflops"] == pytest.approx(5e9 * 2 * 3 * 10 / 1e12)
    assert (row["share_of_peak"], row["no_share"]) == (None, "no figure for CPUs")
    assert failed["error"].startswith("not enough memory") and "error" not in last


def test_where_nothing_is_measured_the_command_fails(answers):
    assert finished(benchmark, "--what=train_step", "--networks=xception_65", "--device=cpu") == 1


def test_without_pytorch_a_line_says_how_it_is_measured(answers, monkeypatch, capsys):
    monkeypatch.setattr(torch_step, "missing", lambda: ["torchvision"])
    flags = ["--what=train_step", "--networks=v3_resnet101", "--device=cpu"]
    assert finished(benchmark, *flags) == 0
    assert [program for program, *_ in answers] == ["tensorflow_step"]
    assert capsys.readouterr().err.splitlines()[0] == (
        "No torchvision here: with torch and torchvision in this environment PyTorch's step of the ResNets is measured "
        "beside ours"
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--networks=resnet", "unknown network 'resnet'; did you mean"),
        ("--networks=finetune", "--networks=finetune: its network follows the data; expected another recipe, or a"),
        ("--networks=tiny --precision=int8", "unknown value of precision 'int8'; "),
        ("--networks=tiny --device=tpu", "unknown device 'tpu'; did you mean gpu or cpu?"),
        ("--networks=tiny --device=cpu --precision=tf32", "--precision=tf32: the CPU does not round float32; expected"),
        ("--networks=tiny --crop=513", "--crop=513: expected height x width, for instance 513x513"),
        ("--networks=tiny --train_batch_size=0", "--train_batch_size=0: expected a number of at least 1"),
        ("--crop=65x65", "--crop=65x65 would do nothing: it needs --what=train_step with --networks; leave it out"),
        ("--device=cpu --networks=", "--device=cpu would do nothing: it needs --what=train_step with --networks"),
    ],
)
def test_mistakes_are_told(flags, reason, capsys, answers):
    assert finished(benchmark, "--what=train_step", *flags.split()) == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: {reason}")
    assert not answers


def test_a_gpu_that_is_not_there_is_told(monkeypatch, answers):
    monkeypatch.setattr(step_speed.tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(DeepLabError, match="^--device=gpu: TensorFlow sees no GPU; "):
        step_speed.measure(StepBenchmark(("tiny",), device="gpu"), announce=print)


def test_precisions_follow_the_card(monkeypatch):
    capability = {"new": (9, 0), "old": (7, 5)}
    details = lambda gpu: {"device_name": gpu, "compute_capability": capability[gpu]}  # noqa: E731
    monkeypatch.setattr(step_speed.tf.config.experimental, "get_device_details", details)
    assert step_speed._precisions(["auto", "tf32", "bfloat16"], ["new"]) == ["bfloat16", "tf32"]
    assert step_speed._precisions(["auto", "float16"], ["old"]) == ["float32", "float16"]
    with pytest.raises(DeepLabError, match="^--precision=tf32: old does not round float32"):
        step_speed._precisions(["tf32"], ["old"])


# ---- the figures


def test_the_share_of_the_peak():
    assert share_of_peak("NVIDIA H200", "bfloat16", 98.95e12) == (pytest.approx(0.1), "")
    assert share_of_peak("NVIDIA A100-SXM4-80GB", "tf32", 78e12) == (pytest.approx(0.5), "")
    assert share_of_peak("Tesla T4", "bfloat16", 1e12) == (None, "no bfloat16 in its tensor cores")
    assert share_of_peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", 1e12) == (None, "unknown card")
    assert share_of_peak(None, "float32", 1e12) == (None, "no figure for CPUs")
    for name, peak in PEAKS.items():
        tensor = [figure for figure in (peak.tf32, peak.float16) if figure]
        assert tensor == sorted(tensor) and peak.float32 <= tensor[0], name
        assert peak.bfloat16 in (None, peak.float16), name


def test_every_network_has_a_configuration():
    for name in networks.network_names():
        assert networks.named_network(name).model.num_classes > 1, name
    found = {name: networks.named_network(name).counterpart for name in networks.network_names()}
    assert {name: backbone for name, backbone in found.items() if backbone} == {
        "v3_resnet101": "resnet101",
        "v3_resnet101_trainval": "resnet101",
        "resnet_v1_50": "resnet50",
        "resnet_v1_50_beta": "resnet50",
        "resnet_v1_101": "resnet101",
        "resnet_v1_101_beta": "resnet101",
    }


def test_steps_are_timed(monkeypatch):
    """A step of 0.45 s fits twice into a turn, and the losses are waited for at the end of each turn alone."""
    clock, waits = [0.0], []
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: clock[0])

    class Loss:
        def __float__(self) -> float:
            waits.append(clock[0])
            return 1.0

    def step() -> Loss:
        clock[0] += 0.45
        return Loss()

    began = []
    found = step_timing.time_steps(step, 2, began=lambda: began.append(clock[0]))
    assert found == {"first_step_s": pytest.approx(0.45), "step_s": [pytest.approx(0.45)] * 2}
    assert len(began) == 1 and len(waits) == 1 + 3 + 2 and clock[0] == pytest.approx(0.45 * (1 + 3 + 2 * 2))


# ---- the processes


def test_a_process_that_fails_is_told(monkeypatch):
    def ended(code: int, out: str = "", err: str = ""):
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code, out, err))
        return step_speed._run("torch_step", SPEC)

    assert ended(0, 'a library says this\n\n{"error": "x"}\n') == {"error": "x"}
    assert ended(-9)["error"] == "its process was ended by SIGKILL; the system ends what takes too much memory"
    assert ended(-11)["error"] == "its process was ended by SIGSEGV"
    assert ended(1, err="Traceback\nOSError: no\n\n")["error"] == "its process ended with status 1: OSError: no"
    assert ended(3)["error"] == "its process ended with status 3: no word"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DeepLabError("a: b"), "a: b"),
        (MemoryError(), "not enough memory (no room for what it needs)"),
        (ValueError("\n first\nsecond"), "ValueError: first"),
    ],
)
def test_an_error_is_one_line(error, told, capsys):
    def measure(spec: StepSpec) -> dict:
        assert spec == SPEC
        raise error

    step_timing.answer(measure, SPEC.to_json())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": told}


@pytest.mark.heavy
def test_the_project_s_own_step_is_measured():
    spec = StepSpec("tiny", "float32", "cpu", 2, (33, 33), 2)
    found = step_speed._run("tensorflow_step", spec)
    assert found["by"].startswith("TensorFlow ") and found["device"] is None
    assert found["multiply_adds"] > 0 and len(found["step_s"]) == 2
    assert min(found["step_s"]) > 0 and found["first_step_s"] > max(found["step_s"])
    assert found["peak_mb"] >= found["warm_peak_mb"] > 50
    failed = step_speed._run("tensorflow_step", StepSpec("tiny", "float32", "gpu", 2, (33, 33), 1))
    assert "error" in failed


# ---- PyTorch, by a stand-in


class Convolution:
    """A layer of 10 weights whose output has 4 x 5 positions."""

    weight = types.SimpleNamespace(numel=lambda: 10)

    def __init__(self):
        self.hook = None

    def register_forward_hook(self, hook):
        self.hook = hook
        return types.SimpleNamespace(remove=lambda: setattr(self, "hook", None))


class Network:
    """Has two convolutions, and notes what is done with it."""

    def __init__(self, backbone, classes, auxiliary):
        self.done = [backbone, classes, auxiliary]
        self.layers = [Convolution(), Convolution(), object()]

    def __getattr__(self, name):
        def note(*given, **named):
            self.done.append(" ".join([name, *map(str, given), *map(str, named.values())]))
            return self

        return note

    def modules(self):
        return self.layers

    def parameters(self):
        return []

    def __call__(self, images):
        for layer in self.layers[:2]:
            if layer.hook:
                layer.hook(layer, None, np.zeros((1, 7, 4, 5)))
        return {"out": np.zeros(images.shape, np.float32).view(Array)}


class Array(np.ndarray):
    """What stands in for PyTorch's tensors: a few of their methods."""

    def to(self, **options):
        return self

    def float(self):
        return self

    def backward(self):
        pass

    def detach(self):
        return 0.5


@pytest.fixture
def pytorch(monkeypatch):
    """Puts a stand-in for PyTorch in place; returns what it notes: the networks made, and the contexts of autocast."""
    made, casts = [], []

    def build(*given):
        made.append(Network(*given))
        return made[-1]

    def autocast(device, *, dtype, enabled):
        casts.append((device, dtype, enabled))
        return contextlib.nullcontext()

    def zeros(*shape, **options):
        return np.zeros([*shape[:-1], shape[-1]] if not isinstance(shape[-1], tuple) else shape[-1]).view(Array)

    optimizer = types.SimpleNamespace(zero_grad=lambda **options: None)
    scaler = types.SimpleNamespace(scale=lambda loss: loss, step=lambda optimizer: None, update=lambda: None)
    backends = types.SimpleNamespace(cuda=types.SimpleNamespace(matmul=types.SimpleNamespace()))
    backends.cudnn = types.SimpleNamespace(benchmark=False)
    functions = types.SimpleNamespace(cross_entropy=lambda logits, labels, ignore_index: np.zeros(()).view(Array))
    parts = {
        "__version__": "9",
        "bfloat16": "bf16",
        "float16": "fp16",
        "channels_last": "channels_last",
        "amp": types.SimpleNamespace(GradScaler=lambda device, enabled: scaler),
        "optim": types.SimpleNamespace(SGD=lambda parameters, **options: optimizer),
        "nn": types.SimpleNamespace(Conv2d=Convolution, functional=functions),
        "cuda": types.SimpleNamespace(is_available=lambda: False),
        "backends": backends,
        "autocast": autocast,
        "no_grad": contextlib.nullcontext,
        "rand": zeros,
        "zeros": zeros,
        "randint": lambda low, high, shape, device: zeros(shape),
    }
    backbones = {"resnet50": lambda weights, replace_stride_with_dilation: str(replace_stride_with_dilation)}
    for name, values in {
        "torch": parts,
        "torchvision.models": backbones,
        "torchvision.models.segmentation.deeplabv3": {"_deeplabv3_resnet": build},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return made, casts, backends


@pytest.mark.parametrize("compiled", [False, True])
def test_pytorch_is_measured(pytorch, compiled):
    made, casts, backends = pytorch
    spec = StepSpec("resnet_v1_50", "bfloat16", "cpu", 2, (65, 97), 2, compiled)
    found = torch_step.measure(spec)
    assert found["by"] == f"PyTorch 9, {'torch.compile' if compiled else 'eager'}"
    assert found["multiply_adds"] == 2 * 10 * 4 * 5 and len(found["step_s"]) == 2
    (network,) = made
    assert network.done[:5] == ["[False, False, True]", 21, False, "to cpu", "to channels_last"]
    assert network.done.count("compile") == compiled
    assert set(casts) == {("cpu", "bf16", True)}
    assert backends.cudnn.benchmark and backends.cudnn.allow_tf32 and backends.cuda.matmul.allow_tf32


def test_float32_is_not_rounded_in_pytorch(pytorch):
    _, casts, backends = pytorch
    torch_step.measure(SPEC)
    assert {enabled for *_, enabled in casts} == {False}
    assert not (backends.cudnn.allow_tf32 or backends.cuda.matmul.allow_tf32)


def test_pytorch_without_a_gpu_is_told(pytorch, capsys):
    torch_step.main(StepSpec("resnet_v1_50", "float32", "gpu", 2, (65, 65), 1).to_json())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "PyTorch 9 sees no GPU"}


def test_a_row_of_pytorch_that_failed_has_its_name():
    rows = [
        {**step_speed._figures(SPEC, {"error": "x"}), "program": "torch_step", "compiled": compiled}
        for compiled in (False, True)
    ]
    lines = step_speed_table.table(rows).splitlines()
    assert [line.split(" | ")[2] for line in lines[4:]] == ["PyTorch, eager", "PyTorch, torch.compile"]
    assert math.isfinite(tensorflow_step._peak("cpu"))
