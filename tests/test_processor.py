"""What is known of the processor: the cores that may be used, and what tells one kind from another."""

import json

from deeplab_tf.inference import processor


def test_the_cores_that_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CGROUP", tmp_path)
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert processor.available_cores() == 8
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert processor.available_cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert processor.available_cores() == 3
    (tmp_path / "cpu.max").write_text("1 100000\n")
    assert processor.available_cores() == 1
    (tmp_path / "cpu.max").write_text("nonsense")
    assert processor.available_cores() == 8
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert processor.available_cores() == 8
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    assert processor.available_cores() == 2


def test_what_tells_processors_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    found = []
    for name, flags in (("Xeon", "avx2 fma"), ("Xeon", "fma avx2"), ("Xeon", "fma avx2 amx"), ("Epyc", "fma avx2")):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\n\nprocessor: 1\n")
        found.append(processor.processor())
    assert found[0] == found[1] and found[0]["model"] == "Xeon"
    assert len({json.dumps(facts) for facts in found}) == 3
    (tmp_path / "cpuinfo").unlink()
    assert processor.processor()["model"]
