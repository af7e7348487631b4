"""Memory that workers share with the coordinator: which path each worker uses, and one digest for all paths and faults."""

import contextlib
import os
import pathlib
import signal
import socket
import struct
import subprocess

import needs
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


# A worker in another container does not see the coordinator in /proc. Here it sees no processes at all.
WITHOUT_PROC = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"']


def doors(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_socket())


@pytest.mark.asan
def test_folder_connects_workers_that_do_not_see_the_coordinator(cluster, program, small, digest, tmp_path):
    needs.check_mounts()
    folder, job = tmp_path / "shm", small(200)
    folder.mkdir()
    pool = cluster("tcp", start=False).start("--shm", folder)
    worker = program("coppice-worker")
    pool.worker("apart", command=[*WITHOUT_PROC, worker])
    pool.worker("folder", "--shm", folder, command=[*WITHOUT_PROC, worker])
    pool.worker("elsewhere", "--shm", tmp_path, command=[*WITHOUT_PROC, worker])
    pool.worker("near")
    until(pool, {"apart": "tcp", "folder": "shm", "elsewhere": "tcp", "near": "shm"})
    assert train(pool, job)["digest"] == digest(job)
    assert f"{tmp_path}/coppice-" in (tmp_path / "elsewhere.log").read_text()
    assert len(doors(folder)) == 1
    assert pool.stop() == 0
    assert doors(folder) == []


def test_killed_coordinator_leaves_a_socket_that_the_next_one_removes(cluster, program, processes, tmp_path):
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "coppice-notes.txt").write_text("not a socket")
    other = processes(program("coppice-coordinator"), "--state", tmp_path / "other", "--listen", f"ipc://{tmp_path}/other.sock", "--shm", folder)
    pool = cluster("tcp", start=False)
    pool.wait(lambda: len(doors(folder)) == 1, "the other coordinator's socket")
    living = doors(folder)
    pool.start("--shm", folder)
    pool.coordinator.kill()
    pool.coordinator.wait()
    left = set(doors(folder)) - set(living)
    assert len(left) == 1
    pool.start("--shm", folder)
    assert len(doors(folder)) == 2 and set(living) < set(doors(folder)) and not left & set(doors(folder))
    assert pool.stop() == 0
    other.terminate()
    assert other.wait(20) == 0
    assert [path.name for path in folder.iterdir()] == ["coppice-notes.txt"]


def test_strangers_at_the_socket_get_nothing_and_disturb_nobody(cluster, program, small, digest, tmp_path):
    """Visitors that say nothing take all places, and one asks for memory that does not exist."""
    needs.check_mounts()
    folder, job = tmp_path / "shm", small(100)
    folder.mkdir()
    pool = cluster("tcp", start=False).start("--shm", folder)
    door = str(folder / doors(folder)[0])
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(20)]
        for s in silent:
            s.connect(door)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(door)
            s.sendall(struct.pack("=QQII", 12345, 1, pool.coordinator.pid, 3))
            data, ancillary, _, _ = s.recvmsg(1, 1024)
            assert data == b"" and not ancillary
        pool.worker("folder", "--shm", folder, command=[*WITHOUT_PROC, program("coppice-worker")])
        until(pool, {"folder": "shm"})
    assert train(pool, job)["digest"] == digest(job)


@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_contradictory_options_are_refused(program, name):
    done = subprocess.run([program(f"coppice-{name}"), "--shm", "/tmp", "--no-shm"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and "exclude each other" in done.stderr


@pytest.mark.parametrize("folder", ["/nowhere", "/dev/null", "/tmp/" + "x" * 90])
def test_folder_that_cannot_hold_a_socket_is_named(program, tmp_path, folder):
    command = [program("coppice-coordinator"), "--state", tmp_path, "--listen", f"ipc://{tmp_path}/c", "--shm", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and f"--shm {folder}" in done.stderr, done


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
