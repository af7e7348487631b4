"""Many workers and a long queue on one coordinator (bench/load.py; 500 workers and 10,000 jobs by ./dev bench load): all is served, and right."""

import pathlib
import sys

import pytest

pytestmark = pytest.mark.chaos


def test_many_workers_serve_a_long_queue(program, root, tmp_path):
    """120 connections; more jobs than fit one page of the list. Each of them is listed once, and ends with the digest of `coppice run`."""
    sys.path.insert(0, str(root / "bench"))
    import load

    jobs = 1050
    figures = load.run(pathlib.Path(program("coppice")).resolve().parent, tmp_path, 60, jobs, 120)
    print(figures)
    assert figures["served"] == jobs
    stalls = figures["stalls"]
    assert stalls["rounds"] > jobs and 0 < stalls["p50_ms"] <= stalls["p99_ms"] <= stalls["p999_ms"] <= stalls["most_ms"]
    assert 0 < stalls["computed_p999_ms"] <= stalls["computed_most_ms"] <= stalls["most_ms"] + 20
