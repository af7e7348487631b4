"""Costs of training besides time, with the network of docs/measurements/speed.md: memory, allocations, and the time to the first step."""

import resource
import time

import pytest

MB = 10**6
DATA_SET = 55 * MB  # MNIST, decoded


@pytest.fixture
def bench(root):
    return root / "examples/bench.yaml"


def peak(process):
    """Peak resident memory of a process, in bytes."""
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_peak_memory_is_limited(cluster, bench, mnist):
    pool = cluster("ipc", mnist)
    workers = [pool.worker(name) for name in "ab"]
    pool.client("submit", bench, "--set", "train.steps=30", "--json", "--quiet")
    assert max(peak(worker) for worker in workers) <= 150 * MB
    assert peak(pool.coordinator) <= 200 * MB + DATA_SET


def test_training_step_allocates_no_memory(coppice, bench, mnist):
    """Counts allocations of our own code (workers, coordinator, store) in one process. After ten steps there are no more."""

    def allocations(steps):
        short = ["--set", f"train.steps={steps}", "--set", "train.batch=16", "--set", "data.validation=100", "--set", "evaluate.on=validation"]
        run = coppice("run", bench, "--data", mnist, "--workers", 2, *short, "--json", "--quiet")
        assert run["steps"] == steps
        return run["allocations"]

    few, many = allocations(10), allocations(210)
    assert 100 < few and many - few < 60, "buffers of what happens to run at once, none for each step"


def slowdown(coppice):
    """How many times slower a thread is because of other load on this machine."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    coppice("inspect", "synthetic-digits")
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(1, wall / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))


def test_first_step_comes_within_a_second(coppice, bench, mnist):
    """Measures from the start of the program, including reading and hashing MNIST; takes the best of a few runs."""
    seen = []
    while len(seen) < 4 and min(seen, default=1000) >= 1000:
        times = slowdown(coppice)
        run = coppice("run", bench, "--data", mnist, "--workers", 2, "--set", "train.steps=1", "--json", "--quiet")
        seen.append(run["first_step_ms"] / times)
    assert min(seen) < 1000, seen
