"""The choices of a training run on data of one's own: from the records, the initial weights and the memory at hand.

A recipe that follows the data (`configs.follows_data`) leaves these options open. Each is chosen once, when the run
begins; one that goes on keeps what its run.json says. What the user gives is never replaced.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from deeplab_tf import files
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig, override
from deeplab_tf.config.train import LEAST_BATCH
from deeplab_tf.data import records
from deeplab_tf.data.examples import dataset_of
from deeplab_tf.data.record_sample import RecordSample, sample_records
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.class_weights import label_weights
from deeplab_tf.training import memory
from deeplab_tf.training.choices import Chosen, Given, shown
from deeplab_tf.training.crop_and_batch import FULL_BATCH, choose_crop_and_batch
from deeplab_tf.training.distribution import reserve_devices
from deeplab_tf.weights.describing import Described, describe_weights
from deeplab_tf.weights.run_options import EVALUATION, PLACES, read_run

# For FULL_BATCH images, by whether batch norm is trained on them: the papers' where the whole head is new. Weights that
# segment already would forget at that rate what they know; docs/tutorials/own_data.md has figures.
_RATES = {"backbone": {True: 0.007, False: 0.004}, "segmentation": {True: 0.002, False: 0.001}}
_LARGEST_RATE = 0.02
_EPOCHS = 140  # for _PICTURES; with other numbers the epochs go with one over the square root
_PICTURES = 400
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 300
_LEAST_STEPS, _MOST_STEPS = 500, 30_000
_IMBALANCE = 20  # of the shares of the classes in the pictures that have them, from which on the loss is weighted
_LEAST_WEIGHT, _LARGEST_WEIGHT = 0.5, 2.0
_UNFOLDED, _RECALIBRATED = 20, 40  # batches
_NEW_LAYER_RATE = 10.0  # of a new last layer, over that of the rest (the release's way of fine-tuning)
_EVALUATED = ("val", "valid", "validation", "test")
# Of ModelConfig what shapes may leave open, and what is of the backbone, which follows the weights without exception.
_OPEN = ("output_stride", "atrous_rates", "multi_grid", "image_se_uses_qsigmoid", "use_bounded_activation")
_OF_BACKBONE = ("model_variant", "depth_multiplier", "divisible_by")


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment with every choice made, and a line for each."""

    experiment: Experiment
    lines: tuple[str, ...]


def plan(recipe: Experiment, given: Given) -> Plan:
    """Returns the experiment of a recipe that follows the data.

    The network is that of the initial weights. Records, at most 256 of them, decide crop, steps and class weights;
    memory the batch; the batch the rate and whether batch norm is trained.

    Args:
      recipe: what does not follow from the data.
      given: configuration -> the fields that the user gives.

    Raises:
      DeepLabError: data or initial weights are missing or cannot be read, or do not fit what is given.
    """
    chosen = Chosen(recipe, given)
    data: DataConfig = chosen.of(DataConfig)
    facts = dataset_of(data)
    run: RunConfig = chosen.of(RunConfig)
    source = run.tf_initial_checkpoint
    if not source:
        raise DeepLabError(
            "--tf_initial_checkpoint is missing; expected the weights to start from: a name of `deeplab-tf zoo`, a "
            "model directory, a TF1 checkpoint"
        )
    if not run.train_logdir:
        folder = os.path.join("exp", re.sub(r"[^\w.-]+", "_", facts.name).strip(".") or "own")
        run = dataclasses.replace(run, train_logdir=chosen.add(RunConfig, "train_logdir", folder, "named by the data"))
    recorded = read_run(files.path(run.train_logdir or ""))
    if recorded:
        return _as_begun(chosen, recorded, facts, str(run.train_logdir))
    if "TF_CONFIG" in os.environ or run.tpu or run.strategy in ("tpu", "multi_worker"):
        if "batch_size" not in given.get(DataConfig, {}):
            raise DeepLabError(
                "--train_batch_size is missing; expected a number: the memory of other machines is not known"
            )
    else:
        reserve_devices(run)
    changes = given.get(ModelConfig, {})
    described = describe_weights(source, {name: value for name, value in changes.items() if name in _OPEN})
    model, line = _network(described, changes, facts, source)
    _choose_splits(chosen, facts)
    sample = sample_records(data, facts, chosen.of(RunConfig).train_split)
    new = _choose_last_layer(chosen, described, facts, model, source)
    choose_crop_and_batch(chosen, sample, model)
    _choose_update(chosen, sample, described, new=new)
    _choose_weights(chosen, sample, facts)
    return Plan(chosen.experiment(model, facts), (line, *chosen.lines()))


def _as_begun(chosen: Chosen, recorded: Mapping[str, Any], facts: Dataset, folder: str) -> Plan:
    """Returns the experiment of the run in a folder that goes on with its own choices.

    The memory that is free may have changed, and the initial weights may be gone.

    Raises:
      DeepLabError: run.json does not hold such options.
    """
    try:
        return _restored(chosen, recorded, facts, folder)
    except (TypeError, AttributeError, ValueError) as error:
        raise DeepLabError(
            f"{folder}/run.json: damaged ({error}); expected the run's options; choose another --train_logdir"
        ) from None


def _restored(chosen: Chosen, recorded: Mapping[str, Any], facts: Dataset, folder: str) -> Plan:
    reason = f"as the run in {folder} began with it"
    values = {**recorded, **recorded.get(PLACES, {})}
    own = {
        DataConfig: ("crop_size", "batch_size"),
        TrainConfig: (
            *("training_number_of_steps", "base_learning_rate", "fine_tune_batch_norm", "label_weights"),
            *("last_layers_contain_logits_only", "last_layer_gradient_multiplier", "mixed_precision"),
        ),
        RunConfig: ("train_split", "initialize_last_layer", "unfold_batch_norm", "recalibrate_batch_norm"),
    }
    for part, fields in own.items():
        for field in fields:
            if field in values:
                value = values[field]
                chosen.add(part, field, tuple(value) if isinstance(value, list) else value, reason)
    scores = recorded.get(EVALUATION, {})
    for field in ("eval_split", "eval_crop_size"):
        if field in scores:
            value = scores[field]
            chosen.add(EvalConfig, field, tuple(value) if isinstance(value, list) else value, reason)
    model = ModelConfig.from_json(recorded.get("model", {}), source=f"{folder}/run.json")
    model = dataclasses.replace(model, **chosen.given_of(ModelConfig))
    line = f"{folder}: the run goes on with the options that were chosen when it began (run.json)"
    return Plan(chosen.experiment(model, facts), (line, *(said for said in chosen.lines() if ": as given" in said)))


# ---- network


def _model_flags(model: ModelConfig) -> str:
    """Returns the options of a network that are not the defaults, as flags."""
    follows = ("num_classes", "crop_size", "input_channels", "extra_band_means", "dense_prediction_cell_json")
    fields = [field for field in dataclasses.fields(model) if field.name not in follows]
    said = [f.name for f in fields if f.name == "model_variant" or getattr(model, f.name) != f.default]
    return " ".join(f"--{name}={shown(getattr(model, name))}" for name in said)


def _network(described: Described, changes: Mapping[str, Any], facts: Dataset, source: str) -> tuple[ModelConfig, str]:
    """Returns the network of the initial weights for the classes of a data set, and its line."""
    found = described.config
    reason = f"the network of {source}"
    if described.kind == "backbone":
        # What the release puts on a backbone: ASPP and decoder, or for a mobile one the pooled feature alone.
        architecture = ARCHITECTURES[found.model_variant]
        large = not architecture.scaled_by and 4 in architecture.decoder_end_points
        head: dict[str, Any] = {"atrous_rates": (6, 12, 18), "decoder_output_stride": (4,)} if large else {}
        kept = {name: getattr(found, name) for name in (*_OF_BACKBONE, "multi_grid", "cascade_blocks")}
        found = ModelConfig(**{**kept, **head})
        reason = f"the backbone is {source}'s, the head the papers' for it"
    classes = {"decoder_filters": facts.num_classes} if found.decoder_output_is_logits else {}
    found = dataclasses.replace(found, crop_size=None, num_classes=facts.num_classes, **classes)
    model = override(found, changes, remembered=_OF_BACKBONE, source=source)
    given = ", ".join(f"--{name}={shown(getattr(model, name))}" for name in changes)
    return model, f"{_model_flags(model)}: {reason}{f', but {given} as given' if given else ''}"


def _choose_last_layer(chosen: Chosen, described: Described, facts: Dataset, model: ModelConfig, source: str) -> bool:
    """Chooses whether the last layer begins anew, and how fast it learns; returns whether it does."""
    theirs = described.class_names
    same = described.kind == "segmentation" and theirs == facts.class_names
    if same:
        reason = f"{source} tells the same {facts.num_classes} classes apart"
    elif described.kind == "backbone":
        reason = f"{source} is a backbone without a head"
    elif not theirs:
        reason = f"nothing says which {described.config.num_classes} classes {source} tells apart"
    else:
        reason = f"{source} has {_classes(theirs)}, the data {_classes(facts.class_names)}"
    kept = chosen.add(RunConfig, "initialize_last_layer", same, reason)
    if kept:
        return False
    whole = model.decoder_output_is_logits or described.kind == "backbone"
    why = "the whole head is new" if described.kind == "backbone" else "the decoder gives the classes and begins anew"
    why = why if whole else "ASPP and decoder keep what they have learned"
    chosen.add(TrainConfig, "last_layers_contain_logits_only", not whole, why)
    chosen.add(TrainConfig, "last_layer_gradient_multiplier", _NEW_LAYER_RATE, "what is new learns faster")
    return True


def _classes(names: tuple[str, ...]) -> str:
    return (
        f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
    )


# ---- data


def _choose_splits(chosen: Chosen, facts: Dataset) -> None:
    """Chooses the splits that are trained on and scored, where theirs are not called train and val."""
    data: DataConfig = chosen.of(DataConfig)
    splits = list(facts.splits) if (data.dataset or "").startswith("tfds:") else []
    if not splits and data.dataset_dir and files.path(data.dataset_dir).is_dir():
        splits = records.find_splits(data.dataset_dir)
    labelled = [split for split in splits if split not in facts.unlabelled]
    if not labelled or "train" in labelled:
        train = "train"
    else:
        train = next((split for split in labelled if split.startswith("train")), labelled[0])
        chosen.add(RunConfig, "train_split", train, f"there is no train; there are {', '.join(splits)}")
    train = chosen.of(RunConfig).train_split
    others = [split for split in labelled if split != train]
    known = [split for split in others if split in _EVALUATED or split.startswith("val")]
    if "val" in others:
        return
    if known:
        chosen.add(EvalConfig, "eval_split", known[0], f"there is no val; there are {', '.join(splits)}")
    elif splits:
        reason = f"there is none ({', '.join(splits)}), so nothing can be scored; build-data --val_share=0.2 makes one"
        chosen.add(EvalConfig, "eval_split", "val", reason)


# ---- update


def _choose_update(chosen: Chosen, sample: RecordSample, described: Described, *, new: bool) -> None:
    """Chooses steps, rate and what becomes of batch norm, by the batch that is used."""
    batch = chosen.of(DataConfig).batch_size
    pictures = sample.records
    epochs = min(max(_EPOCHS * math.sqrt(_PICTURES / pictures), _LEAST_EPOCHS), _MOST_EPOCHS)
    steps = min(max(-(-epochs * pictures // (batch * 100)) * 100, _LEAST_STEPS), _MOST_STEPS)
    reason = f"{steps * batch / pictures:.3g} epochs of {pictures} pictures"
    steps = chosen.add(TrainConfig, "training_number_of_steps", int(steps), reason)
    train, run = chosen.of(TrainConfig), chosen.of(RunConfig)
    gpus = memory.gpus_used(run)
    if gpus or run.tpu or run.strategy == "tpu":
        chosen.add(TrainConfig, "mixed_precision", "auto", "bfloat16 where the devices have it, for speed and memory")
    parts = train.gradient_accumulation_steps * (1 if train.sync_batch_norm else max(gpus, run.num_clones, 1))
    together = batch // parts
    learns = together >= LEAST_BATCH
    reason = f"{together} image{'s' if together > 1 else ''} at a time, batch norm needs {LEAST_BATCH}"
    learns = chosen.add(TrainConfig, "fine_tune_batch_norm", learns, reason)
    full = _RATES[described.kind][learns]
    rate = float(f"{min(full * batch / FULL_BATCH, _LARGEST_RATE):.2g}")
    trained = "" if learns else " without training batch norm"
    keeps = "" if described.kind == "backbone" else ", which keeps what the weights know"
    reason = f"{full:g} for a batch of {FULL_BATCH}{trained}{keeps}; here {batch}"
    chosen.add(TrainConfig, "base_learning_rate", rate, reason)
    if not learns:
        return
    if described.folded:
        reason = "the weights come with batch norm folded, which is trained with statistics of its own"
        chosen.add(RunConfig, "unfold_batch_norm", _UNFOLDED, reason)
    if new:
        reason = "the averages of a new head are slow"
        chosen.add(RunConfig, "recalibrate_batch_norm", _RECALIBRATED, reason)


def _choose_weights(chosen: Chosen, sample: RecordSample, facts: Dataset) -> None:
    """Chooses the classes' weights in the loss by their shares, and tells which have no pixels."""
    counts, around = sample.counts, sample.around
    classes = [i for i in range(facts.num_classes) if i != facts.ignore_label]
    absent = [facts.class_names[i] for i in classes if not counts[i]]
    seen = f"in {sample.seen} pictures of {sample.records}"
    more = f"; no pixel {seen} of {', '.join(absent[:5])}{', ...' * (len(absent) > 5)}" if absent else ""
    present = [i for i in classes if counts[i]]
    if len(present) < 2:
        what = f"only {facts.class_names[present[0]]}" if present else "no class"
        chosen.add(TrainConfig, "label_weights", None, f"{what} has pixels {seen}: there is nothing to learn")
        return
    shares = {i: counts[i] / around[i] for i in present}
    low, high = min(present, key=lambda i: shares[i]), max(present, key=lambda i: shares[i])
    span = f"where they are, {facts.class_names[low]} has {shares[low]:.2%} of a picture and {facts.class_names[high]} "
    span += f"{shares[high]:.2%}{more}"
    if shares[high] < _IMBALANCE * shares[low]:
        chosen.add(TrainConfig, "label_weights", None, f"balanced enough: {span}")
        return
    weights = label_weights(counts, around)["median_frequency"]
    bounded = tuple(min(max(weight, _LEAST_WEIGHT), _LARGEST_WEIGHT) for weight in weights)
    reason = f"median frequency, from {_LEAST_WEIGHT:g} to {_LARGEST_WEIGHT:g}: {span}"
    chosen.add(TrainConfig, "label_weights", bounded, reason)
