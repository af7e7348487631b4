"""Three minutes of a pool with dying workers (soak.py): goodput, growth, one digest. For longer: ./dev soak --hours 24."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import soak

SECONDS = int(os.environ.get("COPPICE_SOAK_SECONDS", "180"))


@pytest.mark.soak
def test_pool_with_dying_workers_loses_no_time_and_does_not_grow(program, tmp_path):
    figures = soak.run(pathlib.Path(program("coppice")).resolve().parent, tmp_path, 1, SECONDS)
    print(json.dumps(figures))
    assert figures["deaths"] >= SECONDS // soak.BETWEEN_DEATHS - 2
    assert soak.broken(figures) == []


@pytest.mark.soak
def test_memory_returned_by_malloc_is_not_counted_as_mapped(program, tmp_path):
    """Otherwise a shrinking arena looks like a leak, as it once did."""
    tools = pathlib.Path(program("coppice")).resolve().parent.parent / "tests"
    done = subprocess.run(
        [tools / "gives_back"], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "LD_PRELOAD": tools / "heap_use.so", "COPPICE_HEAP_USE": tmp_path},
    )
    freed, kept = map(int, done.stdout.split())
    assert freed < soak.ALLOCATED_MOST
    assert abs(kept - freed - 4_000_000) < 10_000


SOUND = {"allocated_more_bytes": 0, "mapped_more_bytes": 0, "memory_more_bytes": 0, "descriptors_more": 0}


def grown(allocated_each, mapped_each, resident_each, descriptors_each, seconds):
    """The growth measured for a program that leaks the given amounts, at 7 steps per second."""
    growth = soak.Growth.__new__(soak.Growth)
    growth.allocated, growth.mapped, growth.descriptors, growth.memory = [], [], [], []
    for second in range(50, seconds):
        deaths, steps = second // soak.BETWEEN_DEATHS, 7 * second
        growth.allocated.append(5_000_000 + allocated_each(deaths, steps))
        growth.mapped.append(90_000_000 + mapped_each(deaths, steps))
        growth.descriptors.append(20 + descriptors_each * deaths)
        if second >= soak.WARM_SECONDS:
            growth.memory.append(20_000_000 + resident_each(deaths, steps))
    return growth.figures()


def nothing(deaths, steps):
    return 0


def weights_of_each_death(deaths, steps):
    return 250_000 * deaths


def half_a_kilobyte_of_each_step(deaths, steps):
    return 512 * steps


@pytest.mark.parametrize("seconds", [180, 1800])
@pytest.mark.parametrize("leak", [
    (weights_of_each_death, nothing, nothing, 0),
    (half_a_kilobyte_of_each_step, nothing, nothing, 0),
    (nothing, weights_of_each_death, nothing, 0),
    (nothing, half_a_kilobyte_of_each_step, nothing, 0),
    (nothing, nothing, weights_of_each_death, 0),
    (nothing, nothing, nothing, 1),
])
def test_a_leak_is_detected(leak, seconds):
    """The limits are tight enough to detect three minutes of leaks."""
    figures = {"seconds": seconds, "goodput": 1.0, "coordinator": grown(*leak, seconds), "worker": SOUND}
    assert len(soak.broken(figures)) == 1
    assert len(soak.broken({**figures, "coordinator": SOUND, "worker": figures["coordinator"]})) == 1
    assert soak.broken({**figures, "coordinator": grown(nothing, nothing, nothing, 0, seconds)}) == []


def test_lost_time_is_detected():
    """If one of four workers is idle for a fifth of the time, the goodput falls by 5 %, at any pace."""
    goodput = soak.Goodput()
    for second in range(101):
        idle = min(second, 20)
        goodput.add(second, 100 * (4 * second - idle), 4 * second, second >= 20)
    figures = {"goodput": goodput.rate("all") / goodput.rate("undisturbed"), "coordinator": SOUND, "worker": SOUND}
    assert abs(figures["goodput"] - 0.95) < 1e-9
    assert soak.broken(figures) == [f"goodput is 0.950, expected at least {soak.GOODPUT_LEAST}"]


@pytest.mark.parametrize("arguments", [["--minutes", "1"], ["--minutes", "nan"], ["--minutes", "3", "--hours", "1"], ["--hours", "x"]])
def test_invalid_durations_are_refused(arguments):
    done = subprocess.run([sys.executable, soak.__file__, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and "error:" in done.stderr
