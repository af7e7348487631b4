"""Three minutes of a pool whose workers die (soak.py): goodput, growth, one digest. More by command: ./dev soak --hours 24."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import soak

SECONDS = int(os.environ.get("COPPICE_SOAK_SECONDS", "180"))


@pytest.mark.soak
def test_a_pool_whose_workers_die_loses_and_gathers_nothing(program, tmp_path):
    figures = soak.run(pathlib.Path(program("coppice")).resolve().parent, tmp_path, 1, SECONDS)
    print(json.dumps(figures))
    assert figures["deaths"] >= SECONDS // soak.BETWEEN_DEATHS - 2
    assert soak.broken(figures) == []


def grown(bytes_each, descriptors_each, deaths=7, steps=900):
    """The growth that is measured of a program which keeps so much of every death and every step."""
    growth = soak.Growth(None)
    for i in range(90):
        growth.samples.append((20_000_000 + bytes_each(deaths * i // 90, steps * i // 90), 20 + descriptors_each * (deaths * i // 90)))
    return growth.figures()


@pytest.mark.parametrize("name, bytes_each, descriptors_each", [
    ("a copy of the weights of each death", lambda death, step: 250_000 * death, 0),
    ("2 KB of each step", lambda death, step: 2000 * step, 0),
    ("a descriptor of each death", lambda death, step: 0, 1),
])
def test_a_leak_would_be_seen(name, bytes_each, descriptors_each):
    """The bounds are not so wide that what three minutes of leaks make would pass."""
    sound = {"memory_more_bytes": 0, "descriptors_more": 0}
    figures = {"goodput": 1.0, "coordinator": grown(bytes_each, descriptors_each), "worker": sound}
    assert len(soak.broken(figures)) == 1, name
    assert soak.broken({**figures, "coordinator": sound}) == []
    half_an_hour = {**figures, "seconds": 1800, "coordinator": grown(bytes_each, descriptors_each, deaths=119, steps=12_900)}
    assert len(soak.broken(half_an_hour)) == 1, name


def test_lost_time_would_be_seen():
    """One of four that does nothing for a fifth of the time is 5 % of the goodput, whatever the pace."""
    goodput = soak.Goodput()
    for second in range(101):
        idle = min(second, 20)
        goodput.add(second, 100 * (4 * second - idle), 4 * second, second >= 20)
    sound = {"memory_more_bytes": 0, "descriptors_more": 0}
    figures = {"goodput": goodput.rate("all") / goodput.rate("undisturbed"), "coordinator": sound, "worker": sound}
    assert abs(figures["goodput"] - 0.95) < 1e-9
    assert soak.broken(figures) == [f"goodput is 0.950, expected at least {soak.GOODPUT_LEAST}"]


@pytest.mark.parametrize("arguments", [["--minutes", "1"], ["--minutes", "nan"], ["--minutes", "3", "--hours", "1"], ["--hours", "x"]])
def test_bad_lengths_are_refused(arguments):
    done = subprocess.run([sys.executable, soak.__file__, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and "error:" in done.stderr
