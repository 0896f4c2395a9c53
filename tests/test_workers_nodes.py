"""Workers on a Ray cluster of two nodes (both on this machine), one of which is lost in the middle."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

from sg_guardrails.workers import Workers, _set_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's test cluster"),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]


@pytest.fixture
def nodes(monkeypatch):
    """A head node and another, one core each, and what takes the other away."""
    if "ray" not in sys.modules:
        _set_up(alone=True)  # a token of this process alone; Ray reads it once
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield lambda: cluster.remove_node(other, allow_graceful=False)
    cluster.shutdown()


def test_a_lost_node_loses_no_task(nodes, tmp_path):
    def make():
        def job(number):
            (tmp_path / str(os.getpid())).touch()
            return 2 * number

        return job

    def tasks():
        for number in range(100_000):
            if len(list(tmp_path.iterdir())) == 2:  # both nodes are at work
                nodes()
                break
            yield number
        else:
            pytest.fail("the second node never began")
        yield from range(number, number + 50)

    with Workers(2) as workers:
        done = sorted(workers.each(make, tasks()))
        assert workers.lost == 1
    assert len(done) > 50
    assert done == [(number, 2 * number) for number in range(len(done))]
