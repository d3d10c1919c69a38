"""--runtime=auto: measured where it pays, kept by what it depends on; what fails is passed over. Clocks are fakes."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from networks import TINY

from deeplab_tf.config import RUNTIMES, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference import libraries, processor, runtime_record
from deeplab_tf.inference import runtime as runtime_module
from deeplab_tf.inference.libraries import LIBRARIES, Library
from deeplab_tf.inference.measured import Candidates, MeasuredBackend, Surroundings, size_class
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.runtime_record import KeptConversions, RuntimeRecord, Verdict
from deeplab_tf.network.build import build_model
from deeplab_tf.network.sizes import at_size

IMAGE = np.zeros((1, 65, 97, 3), np.float32)
PIXELS = 65 * 97
CONFIG = at_size(TINY, (65, 97))
LOGITS = np.random.default_rng(0).normal(size=(1, 5, 7, 6)).astype(np.float32)
FACTS = {"processor": "p", "versions": {"tensorflow": "2"}, "network": {"layers": 3}}


class Clock:
    """Seconds that pass only when something is run."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TensorFlow:
    """Takes `first` seconds for the first picture and `seconds` for each other."""

    name = "TensorFlow"
    batches = True

    def __init__(self, clock: Clock, *, seconds: float, first: float = 2.0):
        self.clock, self.seconds, self.first, self.runs = clock, seconds, first, 0

    def logits(self, images, config):
        self.clock.now += self.first if self.runs == 0 else self.seconds
        self.runs += 1
        return LOGITS

    def upsampled_classes(self, logits, size):
        raise AssertionError("the classes of all runtimes are upsampled in one way")

    def prepare(self):
        pass


class Frozen(TensorFlow):
    """The same with a copy of the weights."""

    name = "Frozen"

    def __init__(self, clock: Clock, *, seconds: float, first: float = 1.0, logits=LOGITS):
        super().__init__(clock, seconds=seconds, first=first)
        self.result, self.released = logits, 0

    def logits(self, images, config):
        super().logits(images, config)
        return self.result

    def release(self):
        self.released += 1
        self.runs = 0


class Files:
    """Takes `seconds` to convert."""

    def __init__(self, clock: Clock, *, seconds: float = 3.0, at_hand: bool = False, content: bytes = b"file"):
        self.config, self.clock, self.seconds, self.at_hand, self.content = TINY, clock, seconds, at_hand, content
        self.conversions = 0

    def is_at_hand(self) -> bool:
        return self.at_hand

    def resizable(self):
        if not self.at_hand:
            self.clock.now += self.seconds
            self.conversions += 1
        self.at_hand = True
        return self.content or None

    def file(self, config, *, convert_anew):
        return self.content


def library(clock: Clock, name: str, seconds: float, *, logits=LOGITS, opening: Exception | None = None) -> Library:
    def run(images):
        clock.now += seconds
        return [logits]

    def open_file(content):
        if opening:
            raise opening
        return run

    return Library(name, name.lower(), {}, open_file)


class Bench:
    """A backend with a clock, and the lines that it told."""

    def __init__(self, tmp_path, *, tf: float = 1.0, first: float = 2.0, facts=FACTS, at_hand=False, content=b"file"):
        self.clock, self.lines = Clock(), []
        self.tensorflow = TensorFlow(self.clock, seconds=tf, first=first)
        self.files = Files(self.clock, at_hand=at_hand, content=content)
        self.record, self.facts = RuntimeRecord(tmp_path / "runtimes.json"), facts
        self.libraries = {"tflite": library(self.clock, "LiteRT", 0.4), "onnx": library(self.clock, "ONNX", 0.2)}
        self.frozen: Frozen | None = None

    def backend(self) -> MeasuredBackend:
        candidates = Candidates(self.tensorflow, self.libraries, self.files, self.frozen)
        surroundings = Surroundings(tell=self.lines.append, clock=self.clock)
        return MeasuredBackend(candidates, self.record, self.facts, surroundings)

    def run(self, pictures: int, *, backend=None, config=CONFIG) -> list[str]:
        """Announces pictures and runs them; what ran each of them."""
        backend, names = backend or self.backend(), []
        backend.announce(pictures * PIXELS)
        for _ in range(pictures):
            np.testing.assert_array_equal(backend.logits(IMAGE, config), LOGITS)
            names.append(backend.name)
        return names


def test_the_fastest_runs_what_is_to_come(tmp_path):
    bench = Bench(tmp_path)
    # Two pictures tell how fast TensorFlow is; converting seems to take 2 * 2 s, four runs of three candidates 12 s.
    assert bench.run(30) == ["TensorFlow"] * 2 + ["ONNX"] * 28
    line = "Measured here at 65 x 97: ONNX 200 ms, LiteRT 400 ms, TensorFlow 1000 ms a picture, kept for the next time"
    assert bench.lines == [line]
    (entry,) = json.loads((tmp_path / "runtimes.json").read_text())["verdicts"].values()
    assert entry["facts"] == {**FACTS, "size_class": size_class((65, 97))}
    assert entry["seconds"] == pytest.approx({"tf": 1.0, "tflite": 0.4, "onnx": 0.2})
    assert (entry["pixels"], entry["converting"], entry["passed_over"]) == (PIXELS, 3.0, {})


def test_few_pictures_are_not_measured(tmp_path):
    bench = Bench(tmp_path)
    assert bench.run(17) == ["TensorFlow"] * 17
    assert bench.files.conversions == 0 and not (tmp_path / "runtimes.json").exists() and bench.lines == []
    assert bench.clock.now == pytest.approx(2 + 16)


def test_pictures_one_by_one_are_measured_in_the_end(tmp_path):
    bench = Bench(tmp_path)
    backend = bench.backend()
    names = [bench.run(1, backend=backend)[0] for _ in range(40)]
    assert names[:16] == ["TensorFlow"] * 16 and names[-20:] == ["ONNX"] * 20


def test_what_is_about_as_fast_runs_again(tmp_path):
    bench = Bench(tmp_path)
    times = {"tflite": iter([9, 5, 0.28, 5, 0.2, 5, 0.15] + [9] * 99), "onnx": iter([9, 0.2, 5, 5, 5, 5, 5] + [9] * 99)}

    def open_file(name):
        def run(images):
            bench.clock.now += next(times[name])
            return [LOGITS]

        return lambda content: run

    bench.libraries = {name: Library(name, name, {}, open_file(name)) for name in times}
    bench.run(30)
    kept = RuntimeRecord(tmp_path / "runtimes.json").find({**FACTS, "size_class": size_class((65, 97))})
    assert kept.seconds == pytest.approx({"tf": 1.0, "tflite": 0.15, "onnx": 0.2}) and kept.order[0] == "tflite"


def test_tensorflow_may_be_the_fastest(tmp_path):
    bench = Bench(tmp_path, tf=0.1, first=0.1)
    assert set(bench.run(50)) == {"TensorFlow"}
    assert len(bench.lines) == 1 and bench.files.conversions == 1


def test_a_server_measures_at_once(tmp_path):
    bench = Bench(tmp_path)
    backend = bench.backend()
    backend.announce(math.inf)
    backend.logits(IMAGE, CONFIG)
    assert backend.name == "ONNX" and not backend.batches


# ---- the frozen graph


def test_the_frozen_graph_is_a_candidate(tmp_path):
    bench = Bench(tmp_path)
    bench.frozen = Frozen(bench.clock, seconds=0.1)
    # Freezing seems to take 2 s, converting 2 * 2 s, four runs of four candidates 16 s.
    assert bench.run(30) == ["TensorFlow"] * 2 + ["Frozen"] * 28
    line = "Frozen 100 ms, ONNX 200 ms, LiteRT 400 ms, TensorFlow 1000 ms a picture, kept for the next time"
    assert bench.lines == [f"Measured here at 65 x 97: {line}"] and not bench.frozen.released
    (entry,) = json.loads((tmp_path / "runtimes.json").read_text())["verdicts"].values()
    assert (entry["converting"], entry["freezing"]) == (3.0, 1.0)
    assert set(entry["seconds"]) == {"tf", "tf_frozen", "tflite", "onnx"}


def test_it_is_one_without_libraries(tmp_path):
    bench = Bench(tmp_path)
    bench.libraries, bench.frozen = {}, Frozen(bench.clock, seconds=0.5)
    # Freezing seems to take 2 s, four runs of two candidates 8 s.
    assert bench.run(20) == ["TensorFlow"] * 2 + ["Frozen"] * 18
    assert bench.files.conversions == 0


def test_it_gives_its_memory_back_where_another_is_faster(tmp_path):
    bench = Bench(tmp_path)
    bench.frozen = Frozen(bench.clock, seconds=0.3)
    assert bench.run(30)[-1] == "ONNX" and bench.frozen.released


def test_it_runs_until_more_pictures_repay_a_conversion(tmp_path):
    first = Bench(tmp_path)
    first.frozen = Frozen(first.clock, seconds=0.3)
    first.run(30)
    later = Bench(tmp_path)
    later.frozen = Frozen(later.clock, seconds=0.3)
    backend = later.backend()
    # It saves 0.7 s a picture for 1 s, ONNX 0.8 s for 3 s, and beside what runs already 0.1 s.
    assert later.run(1, backend=backend) == ["TensorFlow"]
    assert later.run(3, backend=backend) == ["Frozen"] * 3 and later.files.conversions == 0
    assert later.run(31, backend=backend) == ["ONNX"] * 31 and later.files.conversions == 1
    assert later.frozen.released and later.lines == []


@pytest.mark.parametrize(
    ("logits", "reason"), [(-LOGITS, "0.00 % of the pixels"), (LOGITS[:, :4], "its logits have the shape (1, 4, 7, 6)")]
)
def test_it_is_passed_over_as_any_other(tmp_path, logits, reason):
    bench = Bench(tmp_path)
    bench.frozen = Frozen(bench.clock, seconds=0.1, logits=logits)
    assert bench.run(30)[-1] == "ONNX"
    assert bench.lines[0].startswith(f"--runtime=auto passes over Frozen: {reason}")


def test_a_record_without_it_is_none(tmp_path):
    """That of a version before it was a candidate."""
    Bench(tmp_path).run(30)
    file = tmp_path / "runtimes.json"
    content = json.loads(file.read_text())
    for entry in content["verdicts"].values():
        del entry["freezing"]
    file.write_text(json.dumps({**content, "format": 1}))
    assert Bench(tmp_path, at_hand=True).run(1) == ["TensorFlow"]


# ---- what was measured before


def test_what_was_measured_is_used_where_it_pays(tmp_path):
    Bench(tmp_path).run(30)
    later = Bench(tmp_path)
    # 3 s of converting for 0.8 s a picture.
    assert later.run(3) == ["TensorFlow"] * 3 and later.files.conversions == 0
    assert later.run(5) == ["ONNX"] * 5 and later.files.conversions == 1
    assert later.lines == []


def test_a_conversion_at_hand_costs_nothing(tmp_path):
    Bench(tmp_path).run(30)
    assert Bench(tmp_path, at_hand=True).run(1) == ["ONNX"]


@pytest.mark.parametrize(
    "facts",
    [
        {**FACTS, "processor": "q"},
        {**FACTS, "versions": {"tensorflow": "3"}},
        {**FACTS, "versions": {"tensorflow": "2", "openvino": "1"}},
        {**FACTS, "network": {"layers": 4}},
    ],
)
def test_other_circumstances_are_measured_anew(tmp_path, facts):
    Bench(tmp_path).run(30)
    other = Bench(tmp_path, facts=facts, at_hand=True)
    assert other.run(2) == ["TensorFlow"] * 2
    assert other.run(30)[-1] == "ONNX" and len(other.lines) == 1
    assert len(json.loads((tmp_path / "runtimes.json").read_text())["verdicts"]) == 2


def test_another_size_class_is_measured_for_itself(tmp_path):
    Bench(tmp_path).run(30)
    bench = Bench(tmp_path, at_hand=True)
    assert bench.run(1, config=at_size(TINY, (257, 385))) == ["TensorFlow"]
    assert size_class((513, 513)) == size_class((385, 513)) != size_class((1025, 2049))


DAMAGED = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b'{"format": 1}',
    b'{"format": 1, "verdicts": []}',
    b'{"format": 2, "verdicts": {}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_written_anew(tmp_path, content):
    (tmp_path / "runtimes.json").write_bytes(content)
    assert Bench(tmp_path).run(30)[-1] == "ONNX"
    assert Bench(tmp_path, at_hand=True).run(1) == ["ONNX"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", {"tf": "fast", "onnx": 1}),
        ("seconds", {"onnx": 1}),
        ("seconds", {"tf": float("nan")}),
        ("seconds", {"tf": True}),
        ("seconds", [1]),
        ("pixels", 0),
        ("pixels", "many"),
        ("converting", -1),
        ("converting", None),
        ("freezing", -1),
        ("freezing", "1"),
        ("passed_over", {"onnx": 3}),
        ("facts", {}),
    ],
)
def test_a_damaged_verdict_is_measured_anew(tmp_path, field, value):
    Bench(tmp_path).run(30)
    file = tmp_path / "runtimes.json"
    content = json.loads(file.read_text())
    for entry in content["verdicts"].values():
        entry[field] = value
    file.write_text(json.dumps(content))
    bench = Bench(tmp_path, at_hand=True)
    assert bench.run(30) == ["TensorFlow"] * 2 + ["ONNX"] * 28
    assert len(bench.lines) == 1


def test_a_record_that_cannot_be_written(tmp_path):
    (tmp_path / "runtimes.json").mkdir()
    assert Bench(tmp_path).run(30)[-1] == "ONNX"
    assert list(tmp_path.iterdir()) == [tmp_path / "runtimes.json"]
    (tmp_path / "file").write_text("")
    assert Bench(tmp_path / "file").run(30)[-1] == "ONNX"
    record = RuntimeRecord(None)
    record.add(FACTS, Verdict(1, {"tf": 1.0}))
    assert record.find(FACTS) == Verdict(1, {"tf": 1.0})


def test_the_record_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_record, "_MOST_VERDICTS", 3)
    record = RuntimeRecord(tmp_path / "runtimes.json")
    for number in range(5):
        record.add({"number": number}, Verdict(1, {"tf": 1.0}))
    found = [RuntimeRecord(tmp_path / "runtimes.json").find({"number": number}) is not None for number in range(5)]
    assert found == [False, False, True, True, True]


# ---- what fails


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"opening": ImportError("libopenvino.so: cannot open\nmore")}, "libopenvino.so: cannot open"),
        ({"opening": RuntimeError()}, "RuntimeError"),
        ({"opening": DeepLabError("the operation MEAN")}, "the operation MEAN"),
        ({"logits": -LOGITS}, "0.00 % of the pixels have TensorFlow's class; expected 99.99 %"),
        ({"logits": LOGITS[:, :4]}, "its logits have the shape (1, 4, 7, 6), and TensorFlow's (1, 5, 7, 6)"),
        ({"logits": LOGITS * np.nan}, "14.29 % of the pixels"),
    ],
)
def test_what_fails_is_told_and_passed_over(tmp_path, options, reason):
    bench = Bench(tmp_path)
    bench.libraries["onnx"] = library(bench.clock, "ONNX", 0.1, **options)
    assert bench.run(30) == ["TensorFlow"] * 2 + ["LiteRT"] * 28
    assert bench.lines[0].startswith("--runtime=auto passes over ONNX: ") and reason in bench.lines[0]
    assert len(bench.lines) == 2 and "\n" not in bench.lines[0]
    kept = RuntimeRecord(tmp_path / "runtimes.json").find({**FACTS, "size_class": size_class((65, 97))})
    assert set(kept.seconds) == {"tf", "tflite"} and set(kept.passed_over) == {"onnx"}
    assert Bench(tmp_path, at_hand=True).run(1) == ["LiteRT"]


def test_what_fails_later_is_passed_over_too(tmp_path):
    Bench(tmp_path).run(30)
    bench = Bench(tmp_path, at_hand=True)
    bench.libraries["onnx"] = library(bench.clock, "ONNX", 0.1, opening=RuntimeError("no memory"))
    assert bench.run(2) == ["LiteRT"] * 2
    assert bench.lines == ["--runtime=auto passes over ONNX: ONNX cannot run this network (no memory)"]


def test_a_run_that_fails_is_made_up_for(tmp_path):
    Bench(tmp_path).run(30)
    bench = Bench(tmp_path, at_hand=True)
    backend = bench.backend()
    assert bench.run(1, backend=backend) == ["ONNX"]

    def fail(images):
        raise RuntimeError("gone")

    (bench_run,) = backend._networks["onnx"]._open
    backend._networks["onnx"]._open[bench_run] = fail
    assert bench.run(2, backend=backend) == ["TensorFlow", "LiteRT"]


def test_a_network_that_cannot_be_converted_stays_in_tensorflow(tmp_path):
    bench = Bench(tmp_path, content=b"")
    assert bench.run(30) == ["TensorFlow"] * 30
    assert len(bench.lines) == 3


def test_sizes_that_need_their_own_conversion_stay_in_tensorflow(tmp_path):
    bench = Bench(tmp_path, at_hand=True)
    assert bench.run(30, config=dataclasses.replace(CONFIG, crop_size=(65, 98))) == ["TensorFlow"] * 30
    assert bench.files.conversions == 0 and bench.lines == []


# ---- real libraries and real files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model():
    return build_model(dataclasses.replace(TINY, output_stride=8))  # with an atrous depthwise convolution


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_installed(model, monkeypatch, name):
    for module in LIBRARIES[name].packages:
        monkeypatch.setitem(sys.modules, module, None)
    assert LIBRARIES[name].missing
    extra = LIBRARIES[name].extra
    with pytest.raises(DeepLabError, match=rf"--runtime={name} needs .*: pip install 'deeplab_tf\[{extra}\]'"):
        runtime_predictor(model, name)
    for library in LIBRARIES.values():
        for module in library.packages:
            monkeypatch.setitem(sys.modules, module, None)
    assert runtime_predictor(model).backend.name == "TensorFlow"
    assert runtime_predictor(model, "tf_frozen").backend.name == "TensorFlow, frozen"


def test_the_names_are_options():
    assert ("auto", "tf", "tf_frozen", *LIBRARIES) == RUNTIMES
    for name in RUNTIMES:
        assert PredictConfig(runtime=name).runtime == name
    with pytest.raises(DeepLabError, match="unknown runtime 'openvin'; did you mean openvino"):
        PredictConfig(runtime="openvin")


def test_a_gpu_stays_with_tensorflow(model, monkeypatch):
    monkeypatch.setattr(runtime_module, "_on_cpu", lambda: False)
    assert runtime_predictor(model, pixels=math.inf) is predictor_of(model)


def test_openvino_keeps_float32(monkeypatch):
    """By default it calculates in bfloat16 on processors with AMX."""
    given = {}

    class Core:
        def read_model(self, file):
            return file.read_bytes()

        def compile_model(self, model, device, settings):
            given.update(settings, device=device, model=model)
            return type("Compiled", (), {"create_infer_request": lambda self: None})()

    monkeypatch.setattr(libraries.importlib, "import_module", lambda name: type("Module", (), {"Core": Core}))
    LIBRARIES["openvino"].open(b"content")
    assert (given["INFERENCE_PRECISION_HINT"], given["device"], given["model"]) == ("f32", "CPU", b"content")


def test_conversions_are_kept_for_the_same_weights(model, tmp_path):
    kept, made = KeptConversions(tmp_path / "converted"), []

    def convert(content: bytes) -> bytes:
        made.append(content)
        return content

    assert not kept.has(model)
    assert kept.convert(model, lambda: convert(b"one")) == b"one"
    assert kept.has(model) and kept.convert(model, lambda: convert(b"two")) == b"one"
    (file,) = (tmp_path / "converted").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert kept.convert(model, lambda: convert(b"three")) == b"three"
    weight = model.weights[0]
    weight.assign(weight + 1)
    assert not kept.has(model) and kept.convert(model, lambda: convert(b"four")) == b"four"
    weight.assign(weight - 1)
    assert made == [b"one", b"three", b"four"]


def test_what_is_kept_is_bounded(model, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "old.tflite").write_bytes(bytes(60))
    kept = KeptConversions(folder, most_bytes=100)
    kept.convert(model, lambda: b"x" * 30)
    assert len(list(folder.iterdir())) == 1 and not (folder / "old.tflite").exists()
    weight = model.weights[0]
    weight.assign(weight + 1)
    assert kept.convert(model, lambda: b"y" * 100) == b"y" * 100  # too large to be kept
    weight.assign(weight - 1)
    assert kept.has(model)


def test_a_folder_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    assert KeptConversions(tmp_path / "file").convert(model, lambda: b"x") == b"x"


def test_a_cache_in_a_bucket_is_none(monkeypatch):
    monkeypatch.setenv("DEEPLAB_TF_CACHE", "gs://bucket/cache")
    assert runtime_record.cache() is None


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["tf_frozen", "onnx", "openvino"])
def test_the_classes_of_tensorflow(name, model):
    images = np.random.default_rng(1).integers(0, 256, (2, 50, 70, 3)).astype(np.float32)
    for size in ((50, 70), (33, 64)):
        cut = images[:, : size[0], : size[1]]
        assert np.mean(predict(model, cut, runtime=name) == predict(model, cut, runtime="tf")) >= 0.9999
    scaled = [predict(model, images[:1], scales=(0.5, 1.0), flip=True, runtime=runtime) for runtime in (name, "tf")]
    assert np.mean(scaled[0] == scaled[1]) >= 0.9999


@pytest.mark.heavy
def test_auto_with_what_is_installed(model, cache):
    model.derived.clear()
    lines = []
    image = np.random.default_rng(2).integers(0, 256, (1, 65, 65, 3)).astype(np.float32)
    chosen = runtime_predictor(model, pixels=math.inf, surroundings=Surroundings(tell=lines.append))
    found = chosen.labels(image)
    assert np.mean(found == predictor_of(model).labels(image)) >= 0.9998
    assert len(lines) == 1 and lines[0].startswith("Measured here at 65 x 65: ")
    (entry,) = json.loads((cache / "runtimes.json").read_text())["verdicts"].values()
    installed = [name for name, library in LIBRARIES.items() if not library.missing]
    assert set(entry["seconds"]) == {"tf", "tf_frozen", *installed}
    assert entry["facts"]["processor"] == processor.processor()
    assert "crop_size" not in entry["facts"]["network"]["config"]
    assert not installed or len(list((cache / "converted").iterdir())) == 1
    model.derived.clear()
