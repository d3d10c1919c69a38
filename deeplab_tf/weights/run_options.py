"""run.json: the options of a run, what of them may change when it goes on, and what has changed."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypedDict

from deeplab_tf import files
from deeplab_tf.config.resuming import changeable, flag_of
from deeplab_tf.documents.json_files import JSONError, read_json, typed
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.sources import MODEL_FILE

RUN_FILE = "run.json"
# Of run.json what says nothing of the experiment: how it is scored, where things are, when it ends, what has changed.
EVALUATION = "evaluation"
PLACES = "places"
CHANGES = "changes"
# What the data are: classes, ignore label, and of each split the number of records and a digest.
RECORDS = "records"
_NOT_COMPARED = (EVALUATION, PLACES, CHANGES)
_STEPS = "training_number_of_steps"  # may change without a word, and is recorded


class _Split(TypedDict):
    records: int
    digest: str


class _Facts(TypedDict):
    classes: list[str] | None
    ignore_label: int | None


class _Records(TypedDict, total=False):
    classes: list[str] | None
    ignore_label: int | None
    splits: dict[str, _Split] | None


class _Run(TypedDict, total=False):
    """Of run.json what is looked into; other fields are compared as they are."""

    places: dict[str, Any]
    changes: list[dict[str, Any]]
    records: _Records | None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` as JSON has them, with lists for tuples."""
    return json.loads(json.dumps(values))


def read_run(folder: files.AnyPath) -> dict[str, Any]:
    """Returns the run.json of a folder, {} where there is none; raises DeepLabError where it is damaged."""
    file = folder / RUN_FILE
    if not file.exists():
        return {}
    try:
        values = read_json(file, dict[str, Any])
        typed(values, _Run)
        return values
    except (OSError, JSONError) as error:
        raise DeepLabError(f"{file}: damaged ({error}); expected the run's options; choose another folder") from None


def evaluated_records(checkpoint: str) -> tuple[str | None, str | None, str] | None:
    """Returns the data set, the folder of its records and the split that the run of a checkpoint is scored on.

    None where run.json does not say them, or they are not on this machine.

    Args:
      checkpoint: the run's folder, or what is in it.

    Raises:
      DeepLabError: run.json is damaged.
    """
    place = files.path(checkpoint)
    run = next(filter(None, map(read_run, (place, *list(place.parents)[:2]))), None)
    if run is None:
        return None
    named = {"name": run.get("dataset"), **run.get(PLACES, {}), **(run.get(EVALUATION) or {})}
    name, folder, split = (named.get(key) for key in ("name", "dataset_dir", "eval_split"))
    if not (isinstance(name, str | None) and isinstance(folder, str | None) and isinstance(split, str)):
        return None
    return None if folder and files.is_remote(folder) else (name, folder, split)


def changes_of(
    folder: files.AnyPath, run: Mapping[str, Any], *, allowed: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Returns what has changed since the run in a folder began or last changed: flag -> (then, now).

    An option that the folder does not know (another version has written it) counts as the same, and so do data that
    were moved or renamed (see `data.identity`).

    Args:
      folder: of the run, whose run.json may be missing.
      run: the options now, as `run.json` will have them.
      allowed: the flags whose options may have changed.

    Raises:
      DeepLabError: other options have changed: the folder belongs to another experiment. The message names all of them.
    """
    before = read_run(folder)
    changes = {**dict(_changes(before, plain(run))), **_other_data(folder, before, plain(run))} if before else {}
    refused = {flag: pair for flag, pair in changes.items() if flag not in (*allowed, _STEPS)}
    if not refused:
        return changes
    shown = "; ".join(f"{flag}: {_shown(then)} then, {_shown(now)} now" for flag, (then, now) in refused.items())
    cure = "choose another folder or give the same options"
    could = [flag for flag in refused if flag in changeable().values()]
    if len(could) == len(refused):
        cure += f"; --allow_change={','.join(could)} goes on with the new ones"
    raise DeepLabError(f"--train_logdir={folder} belongs to another experiment ({shown}); {cure}")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    steps = [of.get(PLACES, {}).get(_STEPS) for of in (before, now)]
    if None not in steps and steps[0] != steps[1]:
        yield _STEPS, (steps[0], steps[1])
    for name in sorted({*now} - {*_NOT_COMPARED, RECORDS, "dataset", "model"}):
        if before.get(name, now[name]) != now[name]:
            yield flag_of(name), (before[name], now[name])
    network, other = before.get("model", now["model"]), now["model"]
    network = network if isinstance(network, dict) else {}
    for name in sorted({*network, *other} - {"crop_size"}):  # the crop's size is the data's
        if network.get(name) != other.get(name):
            yield name, (network.get(name), other.get(name))


def _other_data(folder: files.AnyPath, before: Mapping, now: Mapping) -> dict[str, tuple[Any, Any]]:
    """Returns the change of the data, where they are others, whatever their place and name."""
    then, here = before.get(RECORDS), now[RECORDS]
    if not isinstance(then, dict):  # of an older version, which knew the name alone, or the path that was given
        names = {before.get("dataset", now["dataset"]), read_description(folder).get("dataset")}
        return {} if now["dataset"] in names else {"dataset": (before["dataset"], now["dataset"])}
    facts = [{name: said.get(name) for name in ("classes", "ignore_label")} for said in (then, here)]
    if facts[0] != facts[1]:
        return {"dataset": (facts[0], facts[1])}
    splits = [said.get("splits") or {} for said in (then, here)]
    common = sorted({*splits[0]} & {*splits[1]})
    differ = [split for split in common if splits[0][split] != splits[1][split]]
    if not differ:
        return {}
    first, second = ({split: of[split] for split in differ} for of in splits)
    return {"dataset_dir": (first, second)}


def read_description(folder: files.AnyPath) -> dict[str, Any]:
    """Returns the fields of deeplab.json as the run in a folder began with them; {} where it cannot be read."""
    try:
        return read_json(folder / MODEL_FILE, dict[str, Any])
    except (OSError, JSONError):
        return {}


def _shown(value: Any) -> str:
    with contextlib.suppress(JSONError):
        facts = typed(value, _Facts)
        names = facts["classes"] or []
        return f"{len(names)} classes ({', '.join(names)}), ignore label {facts['ignore_label']}"
    with contextlib.suppress(JSONError):
        splits = typed(value, dict[str, _Split])
        return ", ".join(f"{of['records']} records of {split} ({of['digest'][:8]})" for split, of in splits.items())
    return str(value)


def merged(before: Mapping[str, Any], run: Mapping[str, Any], changes: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Returns the run.json of a run that goes on.

    Args:
      before: what it was; {} for a new run.
      run: the options now.
      changes: of `changes_of`.
      step: the number of updates done.
    """
    now = plain(run)
    if not before:
        return now
    kept = {**now, **before} if not changes else {**before, **now}
    records = {**now[RECORDS], "splits": {**_splits(before), **_splits(now)}}
    lines = list(before.get(CHANGES, []))
    if changes:
        lines.append({"step": step, **{flag: plain({"": pair})[""] for flag, pair in changes.items()}})
    return {**kept, EVALUATION: now[EVALUATION], PLACES: now[PLACES], RECORDS: records} | (
        {CHANGES: lines} if lines else {}
    )


def _splits(values: Mapping[str, Any]) -> dict[str, Any]:
    records = values.get(RECORDS)
    return (records.get("splits") or {}) if isinstance(records, dict) else {}
