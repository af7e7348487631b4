"""Follows docs/how-to/upgrade.md and back-up.md in the middle of a job, and compares the digest with that of an undisturbed run."""

import pathlib
import re
import shlex
import shutil
import sqlite3
import subprocess

import pytest

STEPS = 8000  # takes seconds, so that all events happen during the job


@pytest.fixture
def pool(cluster, program):
    """A coordinator of this version, or, with `earlier`, of the first minor protocol version; not started."""
    made = cluster("tcp", start=False)
    tests = pathlib.Path(program("coppice")).resolve().parent.parent / "tests"
    made.earlier = {"coppice-coordinator": tests / "earlier_coordinator", "coppice-worker": tests / "earlier_worker"}
    return made


def set_version(pool, program, earlier):
    pool.program = lambda name: (earlier and pool.earlier.get(name)) or program(name)


def status(pool):
    return pool.client("status", "1", "--json", "--timeout", "30")


def wait_steps(pool, more):
    """Waits until the job has done `more` further steps."""
    aim = status(pool)["step"] + more
    pool.wait(lambda: status(pool)["step"] >= aim, f"step {aim}")


def upgrade_coordinator(pool, program):
    assert pool.stop() == 0
    set_version(pool, program, earlier=False)
    pool.start()
    wait_steps(pool, 50)


def upgrade_workers(pool, program):
    """Upgrades one worker after the other, as in docs/how-to/upgrade.md."""
    for name in ("a", "b"):
        pool.workers[name].terminate()
        assert pool.workers[name].wait(30) == 0
        pool.worker(name, command=[program("coppice-worker")])
        pool.wait(lambda name=name: len(pool.client("workers", "--json")["workers"]) == 2, f"{name} to be back")
        wait_steps(pool, 50)


@pytest.mark.parametrize("order", ["workers first", "coordinator first"])
def test_rolling_upgrade_does_not_change_the_digest(pool, program, coppice, small, order):
    job = small(STEPS)
    alone = coppice("run", job, "--workers", "2", "--json", "--quiet", "--out", "alone")
    ensemble = coppice("eval", "alone", "--ensemble", "3", "--json")
    set_version(pool, program, earlier=True)
    pool.start()
    for name in ("a", "b"):
        pool.worker(name, command=[pool.earlier["coppice-worker"]])
    pool.client("submit", job, "--data", ".", "--no-wait")
    wait_steps(pool, 50)
    steps = [upgrade_workers, upgrade_coordinator]
    for upgrade in steps if order == "workers first" else reversed(steps):
        upgrade(pool, program)
    assert status(pool)["state"] == "RUNNING", "the job was too short for what was to happen in it"
    pool.wait(lambda: status(pool)["state"] == "COMPLETED", "the job's end")
    assert status(pool)["digest"] == alone["digest"]
    figures = pool.client("eval", "1", "--ensemble", "3", "--json")
    assert figures["members"] == ensemble["members"]


def test_workers_of_the_first_minor_version_get_no_ensembles(pool, program, small):
    """A later minor version only adds requests, and does not send them to a side that does not know them."""
    pool.start()
    pool.worker("a", command=[pool.earlier["coppice-worker"]])
    pool.client("submit", small(60), "--data", ".")
    pool.client("eval", "1")
    waiting = pool.processes(program("coppice"), "eval", "1", "--ensemble", "3", "--json", env=pool.environment(), stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(2)
    pool.worker("b", command=[program("coppice-worker")])
    assert waiting.wait(60) == 0 and '"members"' in waiting.stdout.read()


def test_backup_and_restore_keep_the_digest(pool, program, coppice, small, root):
    """Runs the two commands of docs/how-to/back-up.md on a working coordinator, and restores into an empty folder."""
    job = small(STEPS)
    alone = coppice("run", job, "--workers", "2", "--json", "--quiet", "--out", "alone")
    set_version(pool, program, earlier=False)
    pool.start()
    pool.worker("a")
    pool.client("submit", job, "--data", ".", "--no-wait")
    wait_steps(pool, 200)
    backup = pool.folder / "backup"
    backup.mkdir(mode=0o700)
    (block,) = re.findall(r"^```sh elsewhere\n(.*?)^```", (root / "docs/how-to/back-up.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(\S.*?)(?: +# .*)?$", block, re.MULTILINE)
    assert lines[0].startswith("sqlite3 ") and lines[1].startswith("cp ")
    for line in lines:
        line = line.replace("/var/lib/coppice", str(pool.state)).replace("/backup", str(backup))
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
        gone = [word for word in done.stderr.splitlines() if "No such file" not in word]
        assert not gone and done.returncode in (0, 1), done.stderr
    at = status(pool)
    assert at["state"] == "RUNNING"
    for process in (pool.workers["a"], pool.coordinator):  # without a worker, no step is added after the backup
        process.kill()
        process.wait()
    shutil.rmtree(pool.state)
    backup.rename(pool.state)
    pool.start()
    again = status(pool)
    assert 0 < again["step"] <= at["step"], "from a checkpoint of the backup, not from the beginning"
    pool.worker("b")
    pool.wait(lambda: status(pool)["state"] == "COMPLETED", "the job's end")
    assert status(pool)["digest"] == alone["digest"]


def test_store_of_a_newer_coordinator_is_refused_and_unchanged(pool, program, small):
    """Starting an older coordinator by mistake loses nothing: it does not change a byte of the state folder."""
    set_version(pool, program, earlier=False)
    pool.start()
    pool.client("submit", small(10), "--data", ".", "--no-wait")
    assert pool.stop() == 0
    store = sqlite3.connect(pool.state / "store.sqlite")
    with store:
        store.execute("UPDATE meta SET version = 99")
    store.close()

    def files():
        return {path: path.read_bytes() for path in pool.state.rglob("*") if path.is_file() and path.name != "lock"}

    before = files()
    command = [program("coppice-coordinator"), "--listen", pool.url, "--state", pool.state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "was written by a newer coppice (store version 99" in done.stderr
    assert files() == before
