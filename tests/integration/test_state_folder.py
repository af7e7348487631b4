"""The state folder of a coordinator: modes, locks, temporary files, and contents that are untrusted input."""

import os
import sqlite3
import stat
import subprocess

import pytest


def modes(folder):
    """The modes of the files and folders that other users can access, by path."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077:
            found[str(path)] = oct(mode)
    return found


@pytest.mark.asan
def test_invalid_rows_of_the_store_are_skipped(cluster, small):
    job = small(60)
    pool = cluster()
    pool.worker("a")
    assert pool.client("submit", job, "--data", ".", "--json", "--quiet")["job"] == 1
    assert pool.stop() == 0
    with sqlite3.connect(pool.state / "store.sqlite") as store:
        columns = "name, text, spec, data_digest, created_ms, owner"
        for number, state in ((-1, 1), (0, 2), (1 << 62, 1), (5, 0), (6, 77), (-7, 4)):
            store.execute(f"INSERT INTO jobs(job, state, {columns}) SELECT ?, ?, {columns} FROM jobs WHERE job = 1", (number, state))
        store.execute("UPDATE meta SET last_job = -5")
    kept = pool.state / "jobs" / "6"
    kept.mkdir()
    pool.start()
    assert [j["job"] for j in pool.client("jobs", "--json")["jobs"]] == [1]
    assert "ignoring the row of job" in (pool.folder / "coordinator.log").read_text()
    assert pool.client("submit", job, "--data", ".", "--no-wait", "--json")["job"] == 7  # one more than the highest existing number
    assert kept.is_dir()
    assert pool.stop() == 0


def test_state_folder_is_private_with_any_umask(cluster, small):
    job = small(120)
    before = os.umask(0)
    try:
        pool = cluster()
        pool.worker("a")
        pool.client("submit", job, "--data", ".", "--json", "--quiet")
        names = {path.name for path in pool.state.rglob("*")}
        assert {"token", "store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "data", "latest", "model.safetensors"} <= names, names
        assert not modes(pool.state)
        assert pool.stop() == 0
    finally:
        os.umask(before)


def test_state_folder_of_an_earlier_version_is_made_private(cluster, small):
    job = small(60)
    pool = cluster()
    pool.client("submit", job, "--data", ".", "--no-wait", "--json")
    assert pool.stop() == 0
    for path in [pool.state, *pool.state.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    pool.start()
    assert not modes(pool.state)
    assert "are now private" in (pool.folder / "coordinator.log").read_text()
    assert pool.stop() == 0


def test_failed_lock_of_the_state_folder_reports_the_reason(program, tmp_path):
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK", program("coppice-coordinator"),
         "--state", tmp_path / "state", "--listen", f"ipc://{tmp_path}/socket"],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 1, done
    assert f"cannot lock {tmp_path}/state/lock: No locks available" in done.stderr


def test_temporary_files_of_a_killed_coordinator_are_removed(cluster, small):
    pool = cluster()
    assert pool.stop() == 0
    left = [pool.state / "token.4711-3.tmp", pool.state / "jobs/1/checkpoints/latest.12-0.tmp"]
    others = [pool.state / "jobs/1/notes.tmp", pool.state / "jobs/1/a-1.tmp"]
    for path in left + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with sqlite3.connect(pool.state / "store.sqlite") as store:
        store.execute("UPDATE meta SET last_job = 0")  # nothing removes the folder of job 1
    pool.start()
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)
    assert pool.stop() == 0


def test_data_of_an_unfinished_job_are_kept_even_if_its_row_is_wrong(cluster, small):
    job = small(60)
    pool = cluster()
    pool.client("submit", job, "--data", ".", "--no-wait")
    name = pool.client("data", "list", "--json")["sets"][0]["name"]
    assert pool.stop() == 0
    with sqlite3.connect(pool.state / "store.sqlite") as store:
        store.execute("UPDATE jobs SET data_digest = ?", ("0" * 64,))
    pool.start()
    assert "is in use by 1 unfinished job" in pool.client("data", "rm", name, status=2).stderr
    assert pool.stop() == 0
