"""What a killed coordinator remembers besides weights: the keys of submissions, and the OpenBLAS to which a job is pinned. Also the life of a
job as the client sees it."""

import json
import pathlib
import re
import signal

import pytest

OTHER = {"OPENBLAS_CORETYPE": "Sandybridge"}  # this worker's OpenBLAS uses other kernels and gives other bits


def restart(pool):
    pool.stop(signal.SIGKILL)
    pool.start()


def test_same_key_means_the_same_job_even_after_a_restart(cluster, small, tmp_path):
    pool = cluster("ipc")
    first = pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json", "--once", "tonight")["job"]
    assert pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json", "--once", "tonight")["job"] == first
    restart(pool)
    assert pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json", "--once", "tonight")["job"] == first
    assert pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json", "--once", "tomorrow")["job"] == first + 1
    assert pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json")["job"] == first + 2


def test_pinned_openblas_survives_a_restart(cluster, small, tmp_path):
    pool = cluster("ipc")
    job = small(3000)
    kept = pool.worker("kept")
    pool.client("submit", job, "--data", tmp_path, "--set", "numerics=openblas", "--no-wait")
    pool.wait_step(50)  # the pin is on the disk by the first checkpoint, at step 40
    kept.kill()
    restart(pool)
    pool.worker("other", **OTHER)
    pool.wait(lambda: "gets no lease of job 1" in pool.client("logs", 1).stdout, "the refusal of the other OpenBLAS")
    before = pool.status()["step"]
    pool.worker("again")
    status = pool.client("watch", 1, "--json", "--quiet")
    assert status["state"] == "COMPLETED" and before < 3000
    pool.client("drain", "other")
    assert pool.workers["other"].wait(30) == 0
    whole = pool.client("submit", job, "--data", tmp_path, "--set", "numerics=openblas", "--json", "--quiet")
    assert whole["digest"] == status["digest"]  # the uninterrupted job has the same bits


@pytest.mark.parametrize("word", ["running", "0", "77"])
def test_unknown_job_is_an_error(cluster, word):
    pool = cluster("ipc")
    done = pool.client("status", word, status=2)
    assert done.stderr.startswith("coppice") and word in done.stderr


def test_submit_cancel_and_remove_a_job(cluster, small, tmp_path):
    pool = cluster("tcp")
    pool.client("submit", small(), "--data", tmp_path, "--no-wait")
    assert pool.status()["step"] == 0
    assert "job 1" in pool.client("rm", 1, status=1).stderr  # the job has not ended yet
    pool.client("cancel", 1)
    assert pool.status()["state"] == "CANCELED"
    jobs = pool.client("jobs", "--json")
    assert "CANCELED" in json.dumps(jobs)
    pool.client("rm", 1)
    assert "no job 1" in pool.client("status", 1, status=2).stderr
    assert pool.client("submit", small(), "--data", tmp_path, "--no-wait", "--json")["job"] == 2  # job numbers are not reused


def test_worker_of_another_major_version_is_refused_with_the_reason(cluster, program):
    """The worker understands the refusal, because FAILURE is the same in all versions, and does not try again."""
    pool = cluster("tcp")
    old = pathlib.Path(program("coppice-worker")).parent.parent / "tests/old_worker"
    process = pool.worker("old", command=[old])
    assert process.wait(20) == 1
    assert re.search(r"speaks protocol 1, you speak 0: install the same major version", (pool.folder / "old.log").read_text())
    assert "speaks protocol 0: refused" in (pool.folder / "coordinator.log").read_text()
    assert pool.client("workers", "--json")["workers"] == []


def test_watch_and_logs_continue_after_a_coordinator_restart(cluster, small, tmp_path, program, processes):
    """Both commands continue after a restart, each event is printed once and in order, and the job keeps its creation time."""
    pool = cluster("ipc")
    pool.worker("w")
    pool.client("submit", small(3000), "--data", tmp_path, "--no-wait")
    created = pool.status()["created"]
    following = {word: processes(program("coppice"), *word.split(), "1", "--json", env=pool.environment(), stdout=-1, stderr=-1) for word in ("watch", "logs -f")}
    pool.wait_step(100)
    restart(pool)
    assert pool.status()["created"] == created
    printed = {word: process.communicate(timeout=60)[0].splitlines() for word, process in following.items()}
    assert [process.returncode for process in following.values()] == [0, 0]
    assert json.loads(printed["watch"][-1])["state"] == "COMPLETED"
    events = [json.loads(line) for line in printed["logs -f"]]
    texts = [event["text"] for event in events]
    assert texts[0] == "submitted" and texts[-1] == "COMPLETED" and texts.count("submitted") == 1
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert texts == [line.split(None, 2)[2] for line in pool.client("logs", 1).stdout.splitlines()]
