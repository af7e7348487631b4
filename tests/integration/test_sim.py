"""The simulator as a program (tests/sim): its replay commands work, it finds injected bugs, and no other program contains these bugs."""

import json
import pathlib
import re
import subprocess

import pytest

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def build(program):
    """The folder of the build under test."""
    return pathlib.Path(program("coppice")).resolve().parent.parent


@pytest.fixture(scope="module")
def sim(build):
    def run(*arguments, status=0, injected=False):
        path = build / "tests/sim" / ("sim-with-bugs" if injected else "sim")
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return run


def test_same_seed_gives_the_same_events(sim):
    one, again, other = (sim("--seed", seed, "--trace") for seed in (11, 11, 12))
    events = [text[: text.rindex("seeds, ")] for text in (one, again, other)]
    assert events[0] == events[1] != events[2] and len(events[0].splitlines()) > 500


def test_without_faults_no_lease_is_repeated(sim):
    figures = json.loads(sim("--seeds", 100, "--no-faults", "--json"))
    assert figures["failures"] == 0 and figures["faults"] == 0 and figures["jobs_completed"] > 200


# The first six failed because of bugs listed in docs/measurements/faults.md, the others because of bugs of the simulator.
FOUND = [1005046, 1035741, 1041297, 1049687, 1063418, 2793382, 1025316, 1051121, 1063056, 1072140, 1086073, 2044871, 5116533, 5484226,
         2086578, 1120582, 1126028, 1136559, 1163201, 1175648, 1177694, 1128536, 2659376, 2755840, 2828068,
         2427248]


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_failed_once_pass(sim, seed):
    figures = json.loads(sim("--seed", seed, "--json"))
    assert figures["failures"] == 0 and figures["faults"] > 0 and figures["leases"] > 0


def test_a_failure_is_shortened_and_its_command_replays_it(sim):
    """For a bug that needs a crash, only few faults remain, and these alone break the same invariant."""
    out = sim("--inject", "FORGET_PIN", "--seeds", 1000, injected=True)
    seed, invariant = re.search(r"^seed (\d+) breaks \"([\w-]+)\"", out, re.MULTILINE).groups()
    left, before = map(int, re.search(r"(\d+) of its (\d+) faults suffice", out).groups())
    assert 1 <= left <= 3 < before
    command = re.search(r"replay: \./dev sim (.*)", out).group(1).split()
    assert command[:2] == ["--seed", seed] and "--faults" in command
    again = sim(*command, injected=True)
    assert f"BROKEN {invariant}: " in again and len(re.findall(r"  FAULT ", again)) <= 2 * left  # each fault has a beginning and an end
    spared = sim("--seed", seed, "--faults", "none", "--inject", "FORGET_PIN", status=1, injected=True)
    assert "NOT caught" in spared


def test_only_the_simulator_contains_injected_bugs(build, root):
    """Only sim-with-bugs has the symbol of the switch. Each bug in the table has its place in the code."""
    def symbols(path):
        return subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout

    assert "cop_injected_bug" in symbols(build / "tests/sim/sim-with-bugs")
    for path in ["tests/sim/sim", "bin/coppice", "bin/coppice-coordinator", "bin/coppice-worker"]:
        assert "cop_injected_bug" not in symbols(build / path), path
    table = re.findall(r"^    X\((\w+), ", (root / "common/base/injected_bugs.h").read_text(), re.MULTILINE)
    assert len(table) == len(set(table)) >= 20
    code = "".join(path.read_text() for folder in ("common", "coordinator", "worker") for path in (root / folder).rglob("*.c"))
    assert set(re.findall(r"COP_INJECT_BUG\((\w+),", code)) == set(table)


def test_wrong_usage_of_sim_is_refused(sim):
    assert "examples:" in sim("--help") and "limits.workers is not enforced" in sim("--list")
    sim("--seed", "x", status=2)
    sim("--faults", "1,two", status=2)
    sim("--inject", "all", status=2)
    sim("--inject", "NO_SUCH", status=2, injected=True)


def test_core_memory_with_ten_thousand_workers(sim):
    """Checks the core's memory per worker, which does not depend on the machine."""
    figures = json.loads(sim("--seed", 1, "--workers", 10000, "--jobs", 4, "--shards", 1024, "--no-faults", "--json"))
    assert figures["failures"] == 0 and figures["core_bytes_per_worker"] < 2048
