"""A bucket that cannot be reached, or that is not there, is one line before any work is done for it."""

import pytest
import tensorflow as tf
from buckets import bucket  # noqa: F401 (a fixture)
from commands import finished, one_line
from test_path_flags import flags_of

from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import remote
from deeplab_tf.tools import build_data, options


@pytest.mark.parametrize("flag", ["output_dir", "write_manifests", "output"])
def test_a_bucket_that_is_not_there_is_told_before_the_work(flag, bucket):  # noqa: F811
    command = {"output_dir": "convert", "write_manifests": "zoo", "output": "verify"}[flag]
    check = options.require_writable_file if flag == "output" else options.require_writable
    for place, sound in ((f"{bucket}/new/x", True), ("gs://none/x", False), ("ram://new/x", True)):
        values = flags_of(command)
        values(["tool", f"--{flag}={place}"])
        if sound:
            check(values, flag)
        else:
            with pytest.raises(
                DeepLabError, match=rf"^--{flag}=gs://none/x: cannot be written .No such bucket.; choose"
            ):
                check(values, flag)


def test_no_connection_is_one_line(bucket, monkeypatch, tmp_path, capsys):  # noqa: F811
    def stat(place):
        raise tf.errors.UnavailableError(None, None, "no host of that name\n\t when reading metadata")

    monkeypatch.setattr(remote._gfile(), "stat", stat)
    monkeypatch.chdir(tmp_path)
    assert finished(build_data, "--dataset=shapes", f"--output_dir={bucket}/x") == 1
    message = one_line(capsys.readouterr().err)
    assert message.startswith(f"tool: --output_dir={bucket}/x: cannot be written ({bucket}: no host of that name); ")
    assert not list(tmp_path.iterdir())


def test_the_folder_of_tfds_that_no_file_system_has_is_named(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "foo://x")
    with pytest.raises(DeepLabError, match=r"^\$TFDS_DATA_DIR=foo://x: foo:// is no file system"):
        find_dataset("tfds:voc", None)
