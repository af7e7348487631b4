"""coppice-worker as a process: it joins, leaves, dies and comes back; wrong usage gives a message."""

import json
import os
import signal
import subprocess
import time

import pytest

from integration_tools import write_patterns

STEPS = 1500  # takes a second or more, so that faults can hit it

JOB = """
name: small
seed: 3
data: {source: idx, train: {images: train-images, labels: train-labels}, test: {images: test-images, labels: test-labels}}
model:
  - dropout: {p: 0.2}
  - linear: {units: 128}
  - relu: {}
  - dropout: {p: 0.5}
  - linear: {units: 5}
train: {steps: %d, batch: 100, shards: 6}
optimizer: {sgd: {rate: 0.1, momentum: 0.9}}
"""


class Cluster:
    """A coordinator over ipc, with helpers for workers and clients."""

    def __init__(self, program, processes, folder):
        self.program, self.processes, self.folder = program, processes, folder
        self.url = f"ipc://{folder}/c.sock"
        self.env = {**os.environ, "COPPICE_COORDINATOR": self.url}
        self.start()

    def start(self):
        self.coordinator = self.processes(
            self.program("coppice-coordinator"), "--state", self.folder / "state",
            "--listen", self.url, stderr=subprocess.DEVNULL, env=self.env)
        wait_until(lambda: (self.folder / "state" / "token").exists()
                   and (self.folder / "c.sock").exists())
        self.env["COPPICE_TOKEN"] = (self.folder / "state" / "token").read_text().strip()

    def worker(self, *options):
        return self.processes(self.program("coppice-worker"), *options, env=self.env,
                              stderr=subprocess.PIPE)

    def ask(self, *words):
        done = subprocess.run([self.program("coppice"), *map(str, words), "--json"], env=self.env,
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for_step(self, step):
        """Waits until the first job has done this many steps."""

        def there():
            done = subprocess.run([self.program("coppice"), "status", "1", "--json"], env=self.env,
                                  capture_output=True, text=True, timeout=60, check=False)
            return done.returncode == 0 and json.loads(done.stdout).get("step", 0) >= step

        wait_until(there)

    def submit(self, steps=STEPS):
        path = write_job(self.folder, steps)
        return self.processes(self.program("coppice"), "submit", path, "--data", self.folder, "--json", env=self.env,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def write_job(folder, steps):
    write_patterns(folder, (("train", 620), ("test", 130)))
    (folder / "job.yaml").write_text(JOB % steps)
    return folder / "job.yaml"


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def finish(job):
    out, _ = job.communicate(timeout=120)
    assert job.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def cluster(program, processes, tmp_path):
    return Cluster(program, processes, tmp_path)


@pytest.fixture(scope="module")
def expected(program, tmp_path_factory):
    """The digest of the job, computed by one worker in process."""
    folder = tmp_path_factory.mktemp("run")
    done = subprocess.run([program("coppice"), "run", write_job(folder, STEPS), "--json", "--out",
                           folder / "out"], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])["digest"]


@pytest.mark.parametrize("threads", [(1,), (2,), (3, 1), (1, 2, 4)])
def test_any_pool_gives_the_same_digest(cluster, expected, threads):
    for count in threads:
        cluster.worker("--threads", str(count))
    assert finish(cluster.submit())["digest"] == expected


def test_killed_worker_does_not_change_a_bit(cluster, expected):
    victim = cluster.worker()
    job = cluster.submit()
    cluster.wait_for_step(5)
    victim.kill()
    cluster.worker()
    result = finish(job)
    assert result["digest"] == expected


def test_frozen_worker_joins_again(cluster, expected):
    frozen = cluster.worker("--name", "frozen")
    job = cluster.submit()
    cluster.wait_for_step(5)
    frozen.send_signal(signal.SIGSTOP)
    cluster.worker("--name", "other")
    assert finish(job)["digest"] == expected
    frozen.send_signal(signal.SIGCONT)
    wait_until(lambda: any("frozen" in json.dumps(line) for line in cluster.ask("workers")))
    frozen.send_signal(signal.SIGTERM)
    assert frozen.wait(timeout=20) == 0


def test_sigterm_drains_a_worker(cluster):
    leaving = cluster.worker()
    staying = cluster.worker()
    job = cluster.submit()
    cluster.wait_for_step(5)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(timeout=20) == 0
    result = finish(job)
    # No lease was lost; a slow worker's block may have been copied.
    assert result["leases_repeated"] == result["leases_doubled"]
    assert staying.poll() is None


def test_worker_survives_a_coordinator_restart(cluster):
    worker = cluster.worker("--name", "patient")
    wait_until(lambda: b"joined" in os.read(worker.stderr.fileno(), 4096))
    cluster.coordinator.kill()
    cluster.coordinator.wait()
    time.sleep(0.3)
    (cluster.folder / "c.sock").unlink(missing_ok=True)
    cluster.start()
    wait_until(lambda: any("patient" in json.dumps(line) for line in cluster.ask("workers")))
    assert finish(cluster.submit(20))["state"] == "COMPLETED"
    assert worker.poll() is None


def test_worker_may_start_before_its_coordinator(cluster):
    cluster.coordinator.kill()
    cluster.coordinator.wait()
    (cluster.folder / "c.sock").unlink(missing_ok=True)
    cluster.worker("--name", "early")
    time.sleep(0.3)  # the worker tries to connect, without success
    cluster.start()
    wait_until(lambda: any("early" in json.dumps(line) for line in cluster.ask("workers")))


def test_worker_that_joins_during_a_job_gets_shards(cluster, expected):
    cluster.worker("--name", "first")
    job = cluster.submit()
    cluster.wait_for_step(5)
    cluster.worker("--name", "second")
    shards = {}

    def both_work():
        for line in cluster.ask("workers"):
            for worker in line.get("workers", [line]):
                if "name" in worker:
                    shards[worker["name"]] = worker.get("shards", 0)
        return shards.get("second", 0) > 0

    wait_until(both_work)
    assert finish(job)["digest"] == expected


def test_slow_worker_gets_fewer_shards_and_changes_no_bit(cluster, expected):
    """One of two workers is stopped for two thirds of the time, in pauses shorter than any deadline."""
    slow = cluster.worker("--name", "slow")
    cluster.worker("--name", "quick")
    job = cluster.submit()
    cluster.wait_for_step(5)
    while job.poll() is None:
        slow.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        slow.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    result = finish(job)
    assert result["digest"] == expected
    assert result["results_twice"] == 0


def test_wrong_token_is_refused(cluster):
    cluster.env["COPPICE_TOKEN"] = "wrong"
    worker = cluster.worker()
    _, text = worker.communicate(timeout=20)
    assert worker.returncode == 2
    assert "token" in text


@pytest.mark.parametrize("words, part", [
    (["--jion", "x"], "did you mean --join"),
    (["--join", "udp://h:1"], "expected tcp://HOST:PORT, tls+tcp://HOST:PORT or ipc:///PATH"),
    (["--join"], "needs a value"),
    (["--threads", "0"], "expected a whole number from 1 to 256"),
    (["--threads", "many"], "expected a whole number from 1 to 256"),
    (["--timeout", "-1"], "expected seconds"),
    (["--token-file", "/nowhere/token"], "/nowhere/token"),
])
def test_wrong_usage_has_exit_status_2(program, words, part):
    done = subprocess.run([program("coppice-worker"), *words], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.startswith("coppice-worker: ")


@pytest.mark.parametrize("name, part", [
    ("mmx", "unknown instruction set"), ("amx", "no kernels for AMX exist yet"), ("AVX2", 'did you mean "avx2"?'),
])
def test_unknown_instruction_set_has_exit_status_2(program, name, part):
    done = subprocess.run([program("coppice-worker")], capture_output=True, text=True, timeout=20,
                          env={**os.environ, "COPPICE_ISA": name}, check=False)
    assert done.returncode == 2
    assert name in done.stderr and part in done.stderr


def test_missing_coordinator_is_reported_with_its_address(program):
    began = time.monotonic()
    done = subprocess.run([program("coppice-worker"), "--join", "tcp://127.0.0.1:9", "--timeout",
                           "1"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "tcp://127.0.0.1:9" in done.stderr
    assert time.monotonic() - began < 5


def test_worker_prints_help_and_version(program):
    for option, part in (("--help", "--join URL"), ("--version", "portable-1")):
        done = subprocess.run([program("coppice-worker"), option], capture_output=True, text=True,
                              timeout=20, check=True)
        assert part in done.stdout
