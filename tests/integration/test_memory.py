"""Failing allocations: in each run, one allocation of our programs fails. The program either prints a message and ends with status 1, or continues
with the same result. It never hangs; the sanitizers' build reports no bad access and no leak. The suite tries a sample of the allocations, and
with COPPICE_TEST_EACH=1 all of them."""

import collections
import json
import os
import signal
import struct
import subprocess
import time

import pytest

pytestmark = [pytest.mark.quick, pytest.mark.asan]
EACH = bool(os.environ.get("COPPICE_TEST_EACH"))
WRONG_REASON = {"coordinator": (35, 82)}  # allocations whose failure was once blamed on an address or an upload

JOB = """
name: small
data: {source: idx, train: {images: images, labels: labels}, test: {images: images, labels: labels}}
model: [{dropout: {p: 0.2}}, {linear: {units: 9}}, relu, {linear: {units: 3, max_norm: 2.5, bias: false}}]
train: {steps: 3, batch: 30, shards: 4}
optimizer: {sgd: {rate: 0.1, momentum: 0.9}}
checkpoint: {every: 2}
"""


@pytest.fixture
def folder(tmp_path):
    pixels = bytes((17 * i + 5 * (i // 16) ** 2) % 251 for i in range(1600))
    (tmp_path / "images").write_bytes(struct.pack(">IIII", 0x803, 100, 4, 4) + pixels)
    (tmp_path / "labels").write_bytes(struct.pack(">II", 0x801, 100) + bytes(i % 3 for i in range(100)))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def run(program, folder, fails, *words):
    """Runs `coppice run` with allocation number `fails` failing (0: none fails). `words` are more options; the default is a new run."""
    words = words or ("--overwrite",)
    return subprocess.run(
        [program("coppice"), "run", "job.yaml", "--workers", "2", "--json", "--quiet", "--out", "run", *words], cwd=folder,
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COPPICE_FAIL_ALLOC": str(fails)},
    )


def test_run_survives_each_failing_allocation(program, folder):
    """Each run sets up coordinator and workers, and does three steps and checkpoints. The folder of the last run can be resumed."""
    first = run(program, folder, 0)
    digest = json.loads(first.stdout)["digest"]
    whole = json.loads(first.stdout)["allocations"]
    assert whole > 200
    failed, stride = 0, 1 if EACH else 6
    for fails in range(1, whole + 20, stride):
        done = run(program, folder, fails)
        if done.returncode == 0:
            assert json.loads(done.stdout)["digest"] == digest, fails
            continue
        failed += 1
        assert done.returncode == 1 and "memory" in done.stderr and done.stderr.splitlines()[-1].startswith("coppice run: "), (fails, done.stderr)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, (fails, done.stderr)
    assert failed > 80 // stride, "without memory it does not end well"
    assert json.loads(run(program, folder, 0, "--resume", "auto").stdout)["digest"] == digest


@pytest.mark.parametrize("words", [("plan", "job.yaml"), ("inspect", "run"), ("inspect", "job.safetensors")], ids=" ".join)
def test_a_table_is_complete_or_the_command_fails(program, folder, words):
    """Status 0 means that all of the output was printed."""
    assert run(program, folder, 0).returncode == 0
    (folder / "job.safetensors").write_bytes((folder / "run/model.safetensors").read_bytes())

    def outcome(fails):
        return subprocess.run([program("coppice"), *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, "COPPICE_FAIL_ALLOC": str(fails)})

    whole = outcome(0)
    assert whole.returncode == 0 and whole.stdout
    failed = last = 0
    for fails in range(1, 400, 1 if EACH else 3):
        done = outcome(fails)
        if done.returncode == 0:
            assert done.stdout == whole.stdout, fails
            if fails > last + 30:  # it makes no more allocations
                break
            continue
        failed, last = failed + 1, fails
        assert done.returncode == 1 and "memory" in done.stderr, (fails, done.stderr)
    assert failed > 10


class Pool:
    """A coordinator and a worker, one of which fails in its allocation number `fails`."""

    def __init__(self, program, processes, folder, who, fails):
        folder.mkdir()
        self.program, self.processes, self.folder = program, processes, folder
        self.url = f"ipc://{folder}/socket"
        self.fails = {who: str(fails)}
        self.environment = {**os.environ, "COPPICE_COORDINATOR": self.url}

    def spawn(self, who, *words):
        log = open(self.folder / who, "w")
        fails = {"COPPICE_FAIL_ALLOC": self.fails[who]} if who in self.fails else {}
        return self.processes(self.program(f"coppice-{who}"), *words, stderr=log, env={**self.environment, **fails})

    def log(self, who):
        return (self.folder / who).read_text()

    def judge_ended(self, who, process):
        """Checks that a process that ended by itself printed a message."""
        assert process.returncode == 1 and "memory" in self.log(who), (self.fails, self.log(who))

    def start(self):
        """Starts both; returns False if one ended with a message."""
        coordinator = self.coordinator = self.spawn("coordinator", "--listen", self.url, "--state", self.folder / "state")
        while "ready:" not in self.log("coordinator"):
            time.sleep(0.01)
            if coordinator.poll() is not None:
                self.judge_ended("coordinator", coordinator)
                return False
        self.environment["COPPICE_TOKEN"] = (self.folder / "state/token").read_text().strip()
        self.worker = self.spawn("worker", "--name", "w")
        return True

    def wait_for_worker(self, seconds):
        """Waits until the worker has joined or ended, or for this time: a coordinator without memory may not report that it joined."""
        end = time.monotonic() + seconds
        while self.worker.poll() is None and "worker w joined" not in self.log("coordinator") and time.monotonic() < end:
            time.sleep(0.02)

    def submit(self, job, timeout=10):
        return subprocess.run([self.program("coppice"), "submit", job, "--data", job.parent, "--json", "--quiet", "--timeout", str(timeout)],
                              env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def stop(self):
        for who, process in (("worker", self.worker), ("coordinator", self.coordinator)):
            process.terminate()
            status = process.wait(30)
            assert status in (0, 1, -signal.SIGTERM), (self.fails, who, status, self.log(who))  # SIGTERM ends it before its handlers are installed
            assert "Sanitizer" not in self.log(who) and "runtime error" not in self.log(who), (self.fails, self.log(who))


def test_pool_survives_each_failing_allocation(program, processes, folder):
    """Fails allocations of the coordinator from its start to the job's end, and of the worker's setup and work. Either the job ends as usual, or
    a message explains why not, and the job ends as usual when it is tried again."""
    digest = json.loads(run(program, folder, 0).stdout)["digest"]
    ends, stride = collections.Counter(), 1 if EACH else 24
    for who, most in (("coordinator", 400), ("worker", 60)):
        for fails in sorted({*range(1, most, stride), *WRONG_REASON.get(who, ())}):
            pool = Pool(program, processes, folder / f"{who}-{fails}", who, fails)
            if not pool.start():
                ends["not started"] += 1
                continue
            pool.wait_for_worker(30 if who == "worker" else 1)
            if pool.worker.poll() is not None:
                pool.judge_ended("worker", pool.worker)
                pool.fails = {}
                pool.worker = pool.spawn("worker", "--name", "again")
            done = pool.submit(folder / "job.yaml", timeout=3)  # the time it waits if nobody answers
            if done.returncode:
                assert done.returncode == 1 and done.stderr.startswith("coppice submit: "), (who, fails, done.stderr)
                ends["reported"] += 1
                done = pool.submit(folder / "job.yaml")
            assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["digest"] == digest, (who, fails, done)
            ends["done"] += 1
            pool.stop()
    assert ends["done"] > 240 // stride and ends["reported"] and ends["not started"], ends
