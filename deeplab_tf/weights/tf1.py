"""TF1 checkpoints into Keras models and back, strictly and with a receipt.

The name is the map: a layer is named by its TF1 scope with "." for "/", and a table keyed by layer type gives the
leaves. There are no lists of names, in either direction.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems.remote_errors import os_errors
from deeplab_tf.network.lite_arithmetic import NUMBERS
from deeplab_tf.weights.names import AVERAGE, COUNTERS, GLOBAL_STEP, SLOTS
from deeplab_tf.weights.sources import WeightSource, open_source, strip_checkpoint_suffix
from deeplab_tf.weights.variables import variable_map

# The leaves that training writes beside a weight, and what they are.
_STATE_LEAVES = {slot: "optimiser slot" for slots in SLOTS.values() for slot in slots}
_STATE_LEAVES |= {AVERAGE: "moving average of the weights"}
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Receipt:
    """A record of what became of every variable of a source.

    Attributes:
      source: the user's name of the weights.
      sha256: of their file.
      loaded: TF1 name -> {"target": Keras path, "shape", "sum": float64 sum of the values}, and "source", the name in
        the file, where that is another.
      skipped: TF1 name -> {"shape", "reason"}.
      notes: what the user should know, a line each.
      new: TF1 names of the variables that the source lacks, on request: those of a new head.
      unsound: a line for each kind of values that no training that went well leaves; these lines are notes too.
    """

    source: str
    sha256: str
    loaded: dict[str, dict[str, Any]]
    skipped: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    unsound: tuple[str, ...] = ()

    def require_sound(self) -> None:
        """Raises DeepLabError where values are not finite, or variances are below 0."""
        if self.unsound:
            raise DeepLabError(
                f"{self.source}: {'; '.join(self.unsound)}; expected weights of a training that went well, take an "
                "earlier checkpoint (--allow_non_finite converts these)"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the receipt as it is written to receipt.json."""
        counts = {"loaded": len(self.loaded), "skipped": len(self.skipped)}
        late = ("new", "unsound")
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in late or value}
        return {**values, "counts": counts}

    def summary(self) -> str:
        """Returns one line: the number of variables loaded, and of those skipped for each reason."""
        reasons: dict[str, int] = {}
        for entry in self.skipped.values():
            reasons[entry["reason"]] = reasons.get(entry["reason"], 0) + 1
        skipped = "; ".join(f"{count} skipped: {reason}" for reason, count in sorted(reasons.items()))
        rest = f"{len(self.new)} new: {_listed(self.new)}" if self.new else "none missing"
        return f"{len(self.loaded)} variables loaded, {rest}" + (f"; {skipped}" if skipped else "")


def training_state(names: Sequence[str]) -> dict[str, str]:
    """Returns name -> reason for those `names` that are training state, not weights.

    They are slots of a variable that is among the names too, step counters, and ranges of quantised training.
    """
    known = set(names)
    state: dict[str, str] = {}
    for name in names:
        variable, _, leaf = name.rpartition("/")
        if name in COUNTERS:
            state[name] = "counter of the training"
        elif leaf in _STATE_LEAVES and variable in known:
            state[name] = _STATE_LEAVES[leaf]
        elif leaf in ("min", "max") and "quant" in variable.rpartition("/")[2]:
            state[name] = "range of quantised training"
        elif leaf in NUMBERS:
            state[name] = "step of a file of eight bits"
    return state


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_match(source: WeightSource, targets: Mapping[str, tuple[int, ...]], extra: Sequence[str]) -> None:
    problems: list[str] = []
    missing = [name for name in targets if name not in source.shapes]
    wrong = [n for n, shape in targets.items() if n in source.shapes and source.shapes[n] != shape]
    if missing:
        problems.append(f"{len(missing)} variables are missing: {_listed(missing)}")
    if extra:
        problems.append(f"{len(extra)} have no place in the model: {_listed(extra)}")
    if wrong:
        shown = _listed([f"{n} {list(source.shapes[n])} instead of {list(targets[n])}" for n in wrong])
        problems.append(f"{len(wrong)} have another shape: {shown}")
    if problems:
        cure = (
            "Give the flags the weights were trained with (num_classes, model_variant, decoder_output_stride, ...), or "
            "leave them out to infer them"
        )
        if missing and len(training_state(missing)) == len(missing):
            cure = "They were not trained quantised: leave --quantize_delay_step out, or train with it first"
        raise DeepLabError(f"{source.path}: does not fit the model; {'; '.join(problems)}. {cure}")


def _read_all(source: WeightSource, names: Sequence[str]) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for name in names:
        value = source.read(name)
        if value.dtype not in (np.float32, np.float16):
            raise DeepLabError(f"{source.path}: {name} is {value.dtype}; expected float32 weights (or float16)")
        values[name] = value.astype(np.float32, copy=False)
    return values


def _unsound(values: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Returns a line for the values that are not finite, and one for the variances that are below 0."""
    bad = [name for name, value in values.items() if not np.isfinite(value).all()]
    variances = [name for name in values if name.endswith("/moving_variance")]
    negative = [name for name in variances if (values[name] < 0).any()]
    lines = (
        f"{len(bad)} variables hold values that are not finite: {_listed(bad)}" if bad else "",
        f"{len(negative)} moving variances are below 0: {_listed(negative)}" if negative else "",
    )
    return tuple(filter(None, lines))


def averaged(source: WeightSource) -> WeightSource:
    """Returns `source` with the moving averages (ema_decay) in place of the weights that have one."""

    def read(name: str) -> np.ndarray:
        average = f"{name}/{AVERAGE}"
        return source.read(average if average in source.shapes else name)

    notes = (*source.notes, "the weights are their moving averages, as the run scores them (ema_decay)")
    return dataclasses.replace(source, read=read, notes=notes)


def load_source(model: keras.Model, source: WeightSource, *, skip: Sequence[str] = ()) -> Receipt:
    """Assigns the weights of `source` to `model`: every variable of either side, or none.

    Args:
      model: a model of `build_model` or `build_backbone`.
      source: the weights.
      skip: scopes of `source` to leave out, for instance the classifier of an ImageNet backbone.

    Raises:
      DeepLabError: a variable is missing, has no place, has another shape or dtype, or is damaged; the model keeps its
        weights.
    """
    variables = variable_map(model)
    state = training_state(list(source.shapes))
    left_out = {n: "left out on request" for n in source.shapes if n.startswith(tuple(f"{s}/" for s in skip))}
    reasons = {name: reason for name, reason in {**state, **left_out}.items() if name not in variables}
    elsewhere = {n: {"shape": list(shape), "reason": why} for n, (shape, why) in sorted(source.left_out.items())}
    extra = [name for name in source.shapes if name not in variables and name not in reasons]
    _check_match(source, {name: tuple(v.shape) for name, v in variables.items()}, extra)
    values = _read_all(source, list(variables))
    # What is skipped is read too, so that a damaged file is refused as a whole.
    for name in reasons:
        source.read(name)
    unsound = _unsound(values)
    loaded: dict[str, dict[str, Any]] = {}
    for name, variable in variables.items():
        value = values.pop(name)
        variable.assign(value)
        total = float(value.sum(dtype=np.float64))
        loaded[name] = {"target": variable.path, "shape": list(value.shape), "sum": total}
        if source.origins.get(name, name) != name:
            loaded[name]["source"] = source.origins[name]
    skipped = {n: {"shape": list(source.shapes[n]), "reason": reasons[n]} for n in sorted(reasons)} | elsewhere
    notes = (*source.notes, *unsound)
    return Receipt(source.path, source.sha256, loaded, skipped, notes, unsound=unsound)


def read_step(source: WeightSource) -> np.ndarray:
    """Returns the global_step of a source that has one; DeepLabError where it is not the count of a training."""
    step = np.asarray(source.read(GLOBAL_STEP))
    if step.shape != () or step.dtype.kind not in "iu" or step < 0:
        found = f"of shape {list(step.shape)}" if step.shape else f"{step} of type {step.dtype}"
        raise DeepLabError(f"{source.path}: {GLOBAL_STEP} is {found}; expected one integer from 0 on")
    return step


def load_tf1_checkpoint(model: keras.Model, path: str | os.PathLike[str], *, skip: Sequence[str] = ()) -> Receipt:
    """Loads weights by their TF1 names: every variable of model and file, or none.

    >>> config, model = deeplab_tf.load("shapes_resnet")
    >>> deeplab_tf.save_tf1_checkpoint(model, "copy/model.ckpt")
    >>> deeplab_tf.load_tf1_checkpoint(deeplab_tf.build_model(config), "copy/model.ckpt").summary()
    '117 variables loaded, none missing'

    Args:
      model: a model of `build_model` or `build_backbone`.
      path: a checkpoint prefix (or one of its files), a folder with a checkpoint, a .tar.gz, a frozen .pb, a float
        .tflite, or a .caffemodel of DeepLab v1 or v2.
      skip: scopes of the file to leave out, for instance the classifier of an ImageNet backbone.

    Returns:
      A receipt for every variable.

    Raises:
      DeepLabError: nothing is there, or a variable is missing, has no place, has another shape or dtype, or is damaged;
        the model keeps its weights.
    """
    with open_source(os.fspath(path)) as source:
        return load_source(model, source, skip=skip)


def write_tensors(prefix: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Writes a TensorFlow checkpoint of named tensors, completely or not at all (data first, then the index).

    Raises:
      DeepLabError: the folder cannot be written.
    """
    prefix = strip_checkpoint_suffix(files.path(prefix))
    names = sorted(tensors)
    values = [tf.convert_to_tensor(tensors[name]) for name in names]
    written = [f"{prefix.name}{suffix}" for suffix in (".data-00000-of-00001", ".index")]
    with files.writing(prefix), files.growing(prefix.parent, written) as folder, os_errors():
        tf.raw_ops.SaveV2(
            prefix=str(folder / prefix.name), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values
        )


def save_tf1_checkpoint(
    model: keras.Model, path: str | os.PathLike[str], *, state: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes the weights as a checkpoint under the TF1 names, bit for bit; the original graph restores it.

    >>> import numpy as np
    >>> config, model = deeplab_tf.load("shapes_resnet")
    >>> deeplab_tf.save_tf1_checkpoint(model, "out/model.ckpt", state={"global_step": np.array(20_000, np.int64)})

    Args:
      model: a model of `build_model` or `build_backbone`.
      path: the prefix, for instance "out/model.ckpt".
      state: more tensors by TF1 name: global_step (which the release's eval, vis and export ask for), optimiser slots.

    Raises:
      DeepLabError: the folder cannot be written.
    """
    tensors = {name: variable.value for name, variable in variable_map(model).items()}
    write_tensors(path, {**tensors, **(state or {})})
