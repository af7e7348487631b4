"""Memory that workers share with the coordinator: which path each worker uses, and one digest for all paths and faults."""

import os
import pathlib
import signal
import subprocess

import pytest

AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]


def paths(pool):
    return {w["name"]: w["path"] for w in pool.client("workers", "--json")["workers"]}


def until(pool, expected):
    pool.wait(lambda: paths(pool) == expected, f"the paths {expected}, not {paths(pool)}")


@pytest.fixture
def digest(coppice, tmp_path):
    """digest(job): of the weights that one process computes."""
    return lambda job: coppice("run", job, "--data", tmp_path, "--workers", "1", "--quiet", "--json", "--out", tmp_path / "alone", "--overwrite")["digest"]


def train(pool, job, *options):
    return pool.client("submit", job, "--data", job.parent, "--quiet", "--json", *options)


@pytest.mark.asan
def test_pool_of_all_paths_has_one_digest(cluster, program, small, digest, tmp_path):
    job = small(200)
    pool = cluster("tcp")
    pool.worker("shared")
    pool.worker("threads", "--threads", "3")
    pool.worker("off", "--no-shm")
    expected = {"shared": "shm", "threads": "shm", "off": "tcp"}
    if os.geteuid() == 0:  # another user cannot open the coordinator's memory
        for path in [tmp_path, *tmp_path.parents]:
            if path == pathlib.Path("/tmp"):
                break
            path.chmod(0o755)
        pool.worker("other", command=[*AS_NOBODY, program("coppice-worker")])
        expected["other"] = "tcp"
    until(pool, expected)
    assert train(pool, job)["digest"] == digest(job)
    assert "SINCE  PATH" in pool.client("workers").stdout
    assert "in memory shared with the coordinator" in (tmp_path / "shared.log").read_text()
    assert "memory" not in (tmp_path / "off.log").read_text()
    if "other" in expected:
        assert "no shared memory with the coordinator" in (tmp_path / "other.log").read_text()


@pytest.mark.parametrize("kind", ["ipc", "tls"])
def test_option_turns_it_off(cluster, small, digest, kind):
    job = small(100)
    pool = cluster(kind, start=False).start("--no-shm")
    name = "worker-a" if kind == "tls" else "a"
    worker = pool.worker("a")
    until(pool, {name: kind})
    assert train(pool, job)["digest"] == digest(job)
    worker.terminate()
    worker.wait(20)
    pool.stop()
    pool.start()
    pool.worker("a")
    until(pool, {name: "shm"})
    assert train(pool, job)["digest"] == digest(job)


def test_memory_of_another_process_namespace_is_not_found(cluster, small, digest):
    """A container of the same user: its processes do not see the coordinator."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not permit namespaces")
    job = small(100)
    pool = cluster("tcp")
    pool.worker("apart", command=[*apart, pool.program("coppice-worker")])
    until(pool, {"apart": "tcp"})
    assert train(pool, job)["digest"] == digest(job)


@pytest.mark.asan
def test_killed_and_stopped_workers_change_nothing(cluster, small, digest, sanitized):
    """One worker is killed while it writes its gradient, another is stopped and writes after others have computed its block."""
    job = small(4000 if sanitized else 20000)  # longer than it takes to give up a worker
    pool = cluster("ipc")
    for name in ("a", "b", "c"):
        pool.worker(name)
    until(pool, dict.fromkeys(pool.workers, "shm"))
    pool.client("submit", job, "--data", job.parent, "--no-wait")
    pool.wait_step(50)
    pool.stop_while_busy("a")
    pool.workers["a"].kill()
    pool.stop_while_busy("b")
    pool.wait(lambda: set(paths(pool)) == {"c"}, "b to be given up")
    pool.wait_step(pool.status()["step"] + 20)
    pool.workers["b"].send_signal(signal.SIGCONT)
    until(pool, {"b": "shm", "c": "shm"})
    pool.wait(lambda: pool.status()["state"] == "COMPLETED", "the job's end")
    assert pool.status()["digest"] == digest(job)


@pytest.mark.asan
def test_killed_coordinator_leaves_nothing(cluster, small, digest, sanitized):
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    job = small(2000 if sanitized else 12000)
    pool = cluster("ipc")
    for name in ("a", "b"):
        pool.worker(name)
    pool.client("submit", job, "--data", job.parent, "--no-wait")
    pool.wait_step(60)
    assert pool.stop(signal.SIGKILL) == -signal.SIGKILL
    pool.start()
    until(pool, {"a": "shm", "b": "shm"})
    pool.wait(lambda: pool.status()["state"] == "COMPLETED", "the job's end")
    assert pool.status()["digest"] == digest(job)
    assert not os.path.isdir("/dev/shm") or set(os.listdir("/dev/shm")) <= before
    mapped = pathlib.Path(f"/proc/{pool.workers['a'].pid}/maps").read_text()
    assert 1 <= mapped.count("/memfd:coppice") <= 5  # versions of the weights and rooms, none of the killed coordinator
