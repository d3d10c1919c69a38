"""A flag that would do nothing is an error, in every command, also where it is given with its default."""

import shlex

import pytest
from absl import flags
from commands import everything, finished, one_line

from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import build_data, options

VOC_PARTS = "--image_folder=a --semantic_segmentation_folder=b --list_folder=c"
ADE_PARTS = "--train_image_folder=a --train_image_label_folder=b --val_image_folder=c --val_image_label_folder=d"
# (command, what is given, the flag that does nothing, what it needs)
IDLE = [
    (build_data, "--dataset=pascal_voc_seg --root=x", "root=x", "--dataset=folder"),
    (build_data, "--dataset=shapes --root=x", "root=x", "--dataset=folder"),
    (build_data, "--dataset=folder --root=x --voc_root=y", "voc_root=y", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=folder --root=x --image_format=jpg", "image_format=jpg", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=ade20k --image_folder=x", "image_folder=x", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=cityscapes --sbd_dir=x", "sbd_dir=x", "--dataset=pascal_voc_seg"),
    (build_data, "--dataset=pascal_voc_seg --cityscapes_root=x", "cityscapes_root=x", "--dataset=cityscapes"),
    (build_data, "--dataset=folder --root=x --ade20k_root=x", "ade20k_root=x", "--dataset=ade20k"),
    (build_data, "--dataset=folder --root=x --val_image_label_folder=x", "val_image_label_folder=x", "--dataset=ade"),
    (build_data, "--dataset=pascal_voc_seg --train_aug_size=10582", "train_aug_size=10582", "--sbd_dir"),
    (build_data, f"--dataset=pascal_voc_seg --voc_root=x {VOC_PARTS}", "voc_root=x", "one of --image_folder, "),
    (build_data, f"--dataset=ade20k --ade20k_root=x {ADE_PARTS}", "ade20k_root=x", "one of --train_image_folder, "),
    (build_data, "--dataset=shapes --beam_runner=DirectRunner --num_processes=2", "num_processes=2", "a build without"),
]


@pytest.mark.parametrize(("command", "line", "flag", "needs"), IDLE, ids=lambda value: str(value)[:60])
def test_a_flag_that_would_do_nothing(command, line, flag, needs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(command, *shlex.split(line)) == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: --{flag} would do nothing: it needs {needs}")
    assert not everything(tmp_path), "before anything is done"


def test_what_is_not_given_or_has_its_condition_is_not_refused():
    values = flags.FlagValues()
    for name in ("a", "b", "c"):
        flags.DEFINE_integer(name, 3, "", flag_values=values)
    flags.DEFINE_multi_string("many", None, "", flag_values=values)
    rules = (options.Use(("a", "many"), "b above c", lambda v: v.b > v.c),)
    values(["tool", "--c=4"])
    options.require_use(values, rules, values)
    values(["tool", "--a=3", "--b=5"])
    options.require_use(values, rules, values)
    for given, shown in (("--a=3", "a=3"), ("--many=x", "many=x"), ("--many=x --many=y", "many=x,y")):
        values.unparse_flags()
        for name in ("a", "b", "c", "many"):
            values[name].unparse()
        values(["tool", "--b=1", *given.split()])
        with pytest.raises(DeepLabError, match=f"^--{shown} would do nothing: it needs b above c; leave it out or giv"):
            options.require_use(values, rules, values)
