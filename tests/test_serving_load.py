"""Honest clients beside hostile ones, and at the server's end: the short form of loads.py."""

import asyncio

import loads
import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")


@pytest.mark.heavy
def test_honest_clients_are_answered_beside_hostile_ones_and_at_the_end():
    with loads.server("shapes_resnet", "--nolog_requests", "--runtime=tf") as (port, process):
        asyncio.run(loads.load(port, 2, 1, {}, process.pid))
        beside, others, used = asyncio.run(loads.load(port, 20, 5, loads.hostile(), process.pid))
        assert beside.faults == [] and len(beside.seconds) >= 20
        assert all(found.seconds and set(found.faults) <= {"400", "413"} for found in others.values()), others
        assert max(used) < 4 * min(used)
        last = asyncio.run(loads.end(port, 20, process))
        assert last.faults == [] and process.wait(90) == 0
