"""The command line meets the world: coordinators that are not there, the other scheme, time-outs."""

import subprocess
import time

import pytest

from integration_tools import free_port


@pytest.fixture
def timed(program, tmp_path):
    """timed(*words): status, error text and seconds of a client."""

    def run(*words, **options):
        began = time.monotonic()
        done = subprocess.run([program("coppice"), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                              cwd=tmp_path, **options)
        return done.returncode, done.stderr, time.monotonic() - began

    return run


# ---- coordinators that are not there ----

ASKING = [("jobs",), ("status", "1"), ("watch", "1"), ("logs", "1", "-f"), ("workers",), ("eval", "1"), ("data", "list")]


@pytest.mark.parametrize("words", ASKING, ids=lambda words: words[0])
def test_refused_connection_is_reported_at_once(timed, words):
    url = f"tcp://127.0.0.1:{free_port()}"
    status, errors, seconds = timed(*words, "--coordinator", url)
    assert status == 2 and url in errors and "Connection refused" in errors, errors
    assert seconds < 3  # it was 10


def test_time_out_asks_for_patience(timed, program, processes, tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    status, errors, seconds = timed("jobs", "--coordinator", url, "--timeout", "1.5")
    assert status == 2 and "waited 1.5 s" in errors and seconds >= 1.5
    asking = processes(program("coppice"), "workers", "--coordinator", url, "--timeout", "30",
                       "--token", "of no coordinator", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.3)
    processes(program("coppice-coordinator"), "--listen", url, "--state", tmp_path / "state", stderr=subprocess.DEVNULL)
    _, errors = asking.communicate(timeout=40)
    assert "token" in errors and "no coordinator" not in errors  # it was found, and has refused the token


@pytest.mark.parametrize("seconds", ["1e-300", "0", "0.001"])
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_any_time_out_ends_with_a_sentence(timed, seconds, scheme):
    url = f"tcp://localhost:{free_port()}" if scheme == "tcp" else "ipc:///nowhere/coppice.sock"
    for _ in range(5):
        status, errors, _ = timed("jobs", "--coordinator", url, "--timeout", seconds)
        assert status == 2 and "no coordinator at" in errors, (status, errors)


# ---- the other scheme ----

@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_the_other_scheme_is_named(cluster, timed, program, kind):
    pool = cluster(kind)
    other = pool.url.removeprefix("tls+") if kind == "tls" else "tls+" + pool.url
    tls = pool.folder / "tls"
    if kind == "tcp":
        subprocess.run([program("coppice-coordinator"), "--init-tls", tls], check=True, capture_output=True)
    options = ["--tls-dir", tls] if kind == "tcp" else []
    status, errors, seconds = timed("jobs", "--coordinator", other, *options)
    assert status == 2 and f"use {pool.url}" in errors, errors
    assert seconds < 6
    worker = subprocess.run([program("coppice-worker"), "--join", other, *map(str, options)], capture_output=True, text=True, timeout=30,
                            check=False)
    assert worker.returncode == 2 and f"use {pool.url}" in worker.stderr, worker.stderr


# ---- held requests ----

def test_watch_with_a_short_time_out_hears_a_living_coordinator(cluster, small):
    pool = cluster("tcp", data=small().parent)
    number = pool.client("submit", small(), "--data", small().parent, "--no-wait", "--json")["job"]
    for words in (("watch", number), ("logs", number, "-f")):
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for workers for as long as one likes
            pool.client(*words, "--timeout", "1", timeout=5)
