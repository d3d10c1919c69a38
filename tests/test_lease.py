"""The lease of a folder in a bucket: one trainer at a time, killed, suspended, or begun at the same time."""

import dataclasses
import json
import os
import time
import uuid

import pytest
from buckets import bucket  # noqa: F401 (a fixture)

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import lease
from deeplab_tf.filesystems.lease import HeldError, Lease, holder_of
from deeplab_tf.weights.run_directory import RunDirectory


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.setattr(lease, "_SETTLED", 0.0)
    place = files.path(f"ram://{uuid.uuid4().hex}/run")
    place.mkdir(parents=True)
    return place


def claim(folder, **changes) -> lease.Holder:
    """Writes the lease of another process: alive, on another machine, for a minute."""
    holder = lease.Holder("tpu-vm-3", 1234, "another machine", time.time() + 60)
    holder = dataclasses.replace(holder, **changes)
    (folder / ".lease-other-0.json").write_text(json.dumps(dataclasses.asdict(holder)))
    return holder


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_second_trainer_is_refused_and_told_who_has_the_folder(folder):
    folder = folder / "new"
    run = RunDirectory(folder)
    assert run.lockable and not run.in_use
    with run.locked():
        end = holder_of(folder).until
        assert run.in_use and time.time() + 100 < end < time.time() + 130
        with pytest.raises(DeepLabError) as caught, RunDirectory(folder).locked():
            pytest.fail("two at once")
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(end))
    expected = f"--train_logdir={folder}: another trainer is at work there (process {os.getpid()} on "
    assert str(caught.value).startswith(expected) and f"whose lease ends at {shown} UTC)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not run.in_use and not folder.exists(), "it was made for nothing, and goes again"
    with RunDirectory(folder).locked():
        (folder / "mine").write_text("x")
    assert names(folder) == ["mine"]


def test_a_lease_that_is_over_is_passed_by(folder, monkeypatch):
    (folder / "mine").write_text("x")
    for changes in (
        {"until": time.time() - 1},
        {"until": 1e300},
        {"machine": lease.this_machine(), "process": 2**22 + 1},
    ):
        claim(folder, **changes)
        assert holder_of(folder) is None
        with RunDirectory(folder).locked():
            assert holder_of(folder).process == os.getpid()
        assert names(folder) == ["mine"]
    claim(folder, machine=lease.this_machine(), process=os.getppid())
    with pytest.raises(HeldError, match=f"process {os.getppid()} on tpu-vm-3"):
        Lease(folder).take()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"host": "a"}', '{"host":1,"process":1,"machine":"","until":9e9}', '{"host":"a"}\xff']
    + ['{"host":"a","process":true,"machine":"m","until":9e9}', '{"host":"a","process":1,"machine":"m","until":"9"}']
    + ['{"host":"a","process":1,"machine":"m","until":NaN}', "[" * 100_000],
)
def test_what_a_killed_process_left_half_written_keeps_nobody_out(text, folder):
    (folder / ".lease-other-0.json").write_bytes(text.encode("latin-1"))
    own = Lease(folder)
    own.take()
    assert holder_of(folder).process == os.getpid() and len(names(folder)) == 1
    own.release()


def test_a_file_that_is_being_written_is_looked_at_again(folder, monkeypatch):
    (folder / ".lease-other-0.json").write_text("{")
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: claim(folder))
    with pytest.raises(HeldError, match="process 1234 on tpu-vm-3"):
        Lease(folder).take()


def test_of_two_that_begin_in_the_same_instant_none_goes_on_beside_the_other(folder, monkeypatch):
    seen = []
    real = lease._claims

    def claims(place):
        seen.append(names(place))
        found = real(place)
        if len(seen) == 1:
            claim(folder)  # after the first look, before its own is written
        return found

    monkeypatch.setattr(lease, "_claims", claims)
    with pytest.raises(HeldError, match="tpu-vm-3"):
        Lease(folder).take()
    assert seen[0] == [] and len(seen[1]) == 2 and names(folder) == [".lease-other-0.json"]


def test_it_is_renewed_by_a_file_after_the_other(folder, monkeypatch):
    monkeypatch.setattr(lease, "_RENEWED", 0.01)
    own = Lease(folder)
    own.take()
    begin, end = names(folder)[0][:-6], holder_of(folder).until
    while holder_of(folder).until < end + 0.05:
        time.sleep(0.01)
    assert all(name.startswith(begin) for name in names(folder)) and f"{begin}0.json" not in names(folder)
    own.release()
    assert names(folder) == []


def test_a_lease_that_is_renewed_between_listing_and_reading_is_seen(folder, monkeypatch):
    own = Lease(folder)
    own.take()
    real = type(folder).read_text
    renewals = iter([own._renew])

    def read_text(file, *args, **kwargs):
        for renew in renewals:
            renew()  # the file that was listed is gone now
        return real(file, *args, **kwargs)

    monkeypatch.setattr(type(folder), "read_text", read_text)
    assert holder_of(folder).process == os.getpid()
    own.release()


def test_who_was_suspended_and_lost_the_folder_writes_no_more(folder):
    run = RunDirectory(folder)
    with run.locked():
        run.save(1, {"v": [1.0]}, keep=2)
        run.log({"step": 1})
        claim(folder)  # of a trainer that found the lease over
        with pytest.raises(DeepLabError, match=r"process 1234 on tpu-vm-3.*nothing more is written there") as caught:
            run.save(2, {"v": [2.0]}, keep=2)
        with pytest.raises(DeepLabError, match="nothing more is written"):
            run.log({"step": 2})
        assert "\n" not in str(caught.value)
    assert run.steps() == [1] and run.lines() == [{"step": 1}]
    assert names(folder)[0] == ".lease-other-0.json", "that of the other stays"


def test_a_folder_of_this_machine_has_one_lock_however_it_is_written(tmp_path):
    second = RunDirectory(f"file://{tmp_path}/run")
    refused = pytest.raises(DeepLabError, match="another trainer")
    with RunDirectory(tmp_path / "run").locked(), refused, second.locked():
        pytest.fail("two at once")


def test_a_bucket_is_locked_and_logged_to_by_a_writer_who_may_not_ask_for_it(bucket):  # noqa: F811
    """Nor may gs:// alone be asked for, where no bucket is named."""
    run = RunDirectory(f"{bucket}/deep/run")
    with run.locked():
        assert run.in_use
        run.log({"step": 1})
        run.log({"step": 2})
        run.forget_after(1)
        (run.path / "best").mkdir(exist_ok=True)
        (run.path / "best").mkdir(exist_ok=True)
    assert run.lines() == [{"step": 1}] and names(run.path) == ["best", "metrics.jsonl"]
    with RunDirectory(f"{bucket}/deep/none").locked():
        pass
    assert names(files.path(f"{bucket}/deep")) == ["run"]


def test_a_bucket_that_is_not_there_is_one_line(bucket):  # noqa: F811
    with (
        pytest.raises(DeepLabError, match=r"^--train_logdir=gs://none/run: cannot be written \(No such file") as caught,
        RunDirectory("gs://none/run").locked(),
    ):
        pytest.fail("there is none")
    assert "\n" not in str(caught.value)
