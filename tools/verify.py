"""Proves released checkpoints: archive, variables, weights, a prediction, and with the data set the published score.

  deeplab-tf verify mobilenetv2_coco_voc_trainaug
  deeplab-tf verify xception65_coco_voc_trainaug --dataset_dir=voc_records
  deeplab-tf verify --all --dataset_dir=voc_records --dataset_dir=cityscapes_records

Each published score is measured at its own output stride, rates, scales and flips. Scores on images that the weights
were trained on are marked as contaminated. The exit status is 1 unless everything passed.
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options

if TYPE_CHECKING:
    from deeplab_tf.evaluation.verification import Verification
    from deeplab_tf.zoo.released import ReleasedCheckpoint

_SHOWN = {"passed": "ok", "failed": "FAILED", "skipped": "-"}


_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(("output", "dataset_dir"), "a command without --record", lambda values: not values.record),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "names of the zoo; they may also be given without the flag's name"
    flags.DEFINE_multi_string("names", [], text, flag_values=values)
    flags.DEFINE_boolean("all", False, "all of the zoo, as a table in Markdown", flag_values=values)
    text = "folder with the TFRecords of the data set; may be given once for each data set"
    options.define_paths(values, "dataset_dir", [], text)
    options.define_path(values, "output", "verify.json", "file to write (default: verify.json)")
    text = "for developers: write <name>.reference.json, what the weights sum to and predict, to this folder"
    options.define_path(values, "record", None, text)


def _entries(values: flags.FlagValues) -> "list[ReleasedCheckpoint]":
    """Returns the entries of the zoo to verify."""
    from deeplab_tf.zoo import lookup

    if bool(values.names) == values.all:
        raise DeepLabError("expected names of the zoo, or --all; `deeplab-tf zoo` lists them")
    return list(lookup.CHECKPOINTS.values()) if values.all else [lookup.find(name) for name in values.names]


def _folder_for(entry: "ReleasedCheckpoint", values: flags.FlagValues) -> str | None:
    """Returns the folder with the data set of a checkpoint; a single folder for a single name is not checked."""
    from deeplab_tf.evaluation.verify import data_name

    if len(values.dataset_dir) == len(values.names) == 1:
        return values.dataset_dir[0]
    name_of = {folder: data_name(folder) for folder in values.dataset_dir}
    for folder, name in name_of.items():
        if name is None:
            raise DeepLabError(f"--dataset_dir={folder}: no dataset.json says what it holds; verify one name at a time")
    return next((folder for folder, name in name_of.items() if name == entry.dataset), None)


def _lines(verification: "Verification") -> Iterator[str]:
    yield f"{verification.name}: {verification.verdict}"
    for check in verification.checks:
        yield f"  {_SHOWN[check.status]:<7} {check.name}: {check.words}"
    for score in verification.scores:
        yield f"  {score.verdict}: {score.measured:.2f} % measured for {score.settings}"
        if score.contaminated:
            yield f"          {score.contaminated}"


def _markdown(verifications: "Sequence[Verification]") -> str:
    """Returns the results as a table in Markdown."""
    columns = ("name", "archive", "variables", "weights", "prediction", "published", "measured", "verdict")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for verification in verifications:
        status = {check.name: _SHOWN[check.status] for check in verification.checks}
        checks = [status.get(name, "-") for name in columns[1:5]]
        for score in verification.scores or (None,):
            if score:
                figures = (score.settings, f"{score.measured:.2f} %", score.verdict)
            else:
                figures = ("", "", verification.verdict)
            lines.append(f"| {' | '.join((verification.name, *checks, *figures))} |")
    return "\n".join(lines)


def _write(place: files.AnyPath, content: object, flag: str) -> None:
    with files.written(place, flag=flag, cure="choose another") as file:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(values: flags.FlagValues) -> int:
    """Verifies the checkpoints, prints the results and writes them to --output; returns 1 unless everything passed."""
    entries = _entries(values)
    options.require_writable_file(values, "output")
    options.require_use(values, _USES, values)
    options.start_tensorflow()
    options.tell_exactness(optional=False)
    from deeplab_tf.evaluation import verify
    from deeplab_tf.evaluation.verification import PASSED

    if values.record:
        for entry in entries:
            _write(files.path(values.record) / f"{entry.name}.reference.json", verify.record(entry), "--record")
        return 0
    verifications = []
    for entry in entries:
        verifications.append(verify.verify(entry, dataset_dir=_folder_for(entry, values)))
        if not values.all:
            print("\n".join(_lines(verifications[-1])), flush=True)
    if values.all:
        print(_markdown(verifications))
    _write(files.path(values.output), [verification.to_json() for verification in verifications], "--output")
    print(f"Written: {values.output}")
    return int(any(verification.verdict != PASSED for verification in verifications))


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="names")


if __name__ == "__main__":
    run()
