"""One coordinator correctly serves many workers and a long queue (bench/load.py; ./dev bench load: 500 workers and 10,000 jobs)."""

import pathlib
import sys

import pytest

pytestmark = pytest.mark.chaos


def test_many_workers_serve_a_long_queue(program, root, tmp_path):
    """There are 120 connections, and more jobs than fit on one page of the list. Each job is listed once, and has the digest of `coppice run`."""
    sys.path.insert(0, str(root / "bench"))
    import load

    jobs = 1050
    figures = load.run(pathlib.Path(program("coppice")).resolve().parent, tmp_path, 60, jobs, 120)
    print(figures)
    assert figures["served"] == jobs
    stalls = figures["stalls"]
    assert stalls["rounds"] > jobs and 0 < stalls["p50_ms"] <= stalls["p99_ms"] <= stalls["p999_ms"] <= stalls["most_ms"]
    assert 0 < stalls["computed_p999_ms"] <= stalls["computed_most_ms"] <= stalls["most_ms"] + 20
