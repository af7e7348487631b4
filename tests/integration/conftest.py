"""Fixtures of the integration tests: the programs as processes, clusters of them, and small data sets."""

import json
import os
import signal
import subprocess
import time

import pytest

from integration_tools import free_port, write_patterns


@pytest.fixture
def coppice(program, tmp_path):
    """coppice(*arguments, status=0, **environment): runs the client; returns its JSON with --json, otherwise the finished process. Status None accepts any status."""

    def call(*arguments, status=0, timeout=240, **environment):
        done = subprocess.run(
            [program("coppice"), *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=timeout,
            check=False, env={**os.environ, **{k: str(v) for k, v in environment.items()}},
        )
        assert status in (None, done.returncode), f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        if "--json" in arguments and status == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        return done

    return call


SMALL = """
name: small
seed: 7
data: {{source: idx, train: {{images: train-images, labels: train-labels}}, test: {{images: test-images, labels: test-labels}}}}
model:
  - dropout: {{p: 0.2}}
  - linear: {{units: 37, max_norm: 2.0}}
  - relu
  - dropout: {{p: 0.5}}
  - linear: {{units: 5}}
train: {{steps: {steps}, batch: 50, shards: 6}}
optimizer: {{sgd: {{rate: 0.1, momentum: 0.9, schedule: cosine}}}}
checkpoint: {{every: 40, keep: 2}}
"""


@pytest.fixture
def large(tmp_path):
    """large(seed): writes patterns with 2300 test samples, which are three slices of an evaluation; returns the folder."""

    def make(seed=11):
        write_patterns(tmp_path, (("train", 620), ("test", 2300)), seed)
        return tmp_path

    return make


@pytest.fixture
def small(tmp_path):
    """small(steps, extra): writes patterns of 620 + 130 samples, and a job file; returns its path."""
    write_patterns(tmp_path, (("train", 620), ("test", 130)))

    def make(steps=100, extra=""):
        path = tmp_path / "small.yaml"
        path.write_text(SMALL.format(steps=steps) + extra)
        return path

    return make


class Cluster:
    """A coordinator and its workers, as processes that end with the test."""

    def __init__(self, program, processes, folder, url, data):
        self.program, self.processes, self.folder, self.url, self.data = program, processes, folder, url, data
        self.state = folder / "state"
        self.tls = folder / "tls" if url.startswith("tls+") else None
        self.workers = {}
        self.coordinator = None

    def environment(self):
        proof = {"COPPICE_TLS_DIR": str(self.tls)} if self.tls else {"COPPICE_TOKEN": self.token()}
        return {**os.environ, **proof, "COPPICE_COORDINATOR": self.url}

    def token(self):
        return (self.state / "token").read_text().strip()

    def start(self, *arguments, command=()):
        log = open(self.folder / "coordinator.log", "a")
        data = ["--data", self.data] if self.data else []
        if self.tls:
            data += ["--tls-dir", self.tls]
            if not self.tls.exists():
                subprocess.run([self.program("coppice-coordinator"), "--init-tls", self.tls], check=True, capture_output=True)
        self.coordinator = self.processes(
            *command, self.program("coppice-coordinator"), "--listen", self.url, "--state", self.state, *data, *arguments, stderr=log
        )
        for _ in range(400):
            if (self.folder / "coordinator.log").read_text().count("ready:") > getattr(self, "ready", 0):
                break
            assert self.coordinator.poll() is None, (self.folder / "coordinator.log").read_text()
            time.sleep(0.025)
        self.ready = getattr(self, "ready", 0) + 1
        return self

    def worker(self, name, *arguments, command=None, **environment):
        name = f"worker-{name}" if self.tls else name  # the certificate requires this prefix
        log = open(self.folder / f"{name}.log", "a")
        self.workers[name] = self.processes(
            *(command or [self.program("coppice-worker")]), "--name", name, *arguments, stderr=log,
            env={**self.environment(), **environment},
        )
        return self.workers[name]

    def client(self, *arguments, status=0, timeout=240):
        done = subprocess.run(
            [self.program("coppice"), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False,
            env=self.environment(), cwd=self.folder,
        )
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        if "--json" in arguments and status == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        return done

    def wait(self, test, what, seconds=60):
        for _ in range(int(seconds / 0.05)):
            if test():
                return
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s for {what}\n" + (self.folder / "coordinator.log").read_text()[-3000:])

    def status(self, job=1):
        return self.client("status", job, "--json")

    def wait_step(self, step, job=1):
        self.wait(lambda: self.status(job)["step"] >= step, f"step {step}")

    def stop_while_busy(self, name):
        """Stops a worker while it holds a lease. Also accepts that its lease was meanwhile given to another worker."""
        worker = self.workers[name]

        def repeated():
            return sum(j.get("leases_repeated", 0) for j in self.client("jobs", "--json")["jobs"])

        for _ in range(100):
            before = repeated()
            worker.send_signal(signal.SIGSTOP)
            time.sleep(0.05)  # time for its last messages to arrive
            if any(w["name"] == name and w["holds_lease"] for w in self.client("workers", "--json")["workers"]) or repeated() > before:
                return
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        raise AssertionError(f"{name} never held a lease")

    def stop(self, number=signal.SIGTERM):
        self.coordinator.send_signal(number)
        return self.coordinator.wait(60)


@pytest.fixture
def cluster(program, processes, tmp_path):
    """cluster(kind, data): starts a coordinator on ipc, tcp or tls; returns the Cluster."""

    def make(kind="ipc", data=None, start=True):
        url = f"ipc://{tmp_path}/coppice.sock" if kind == "ipc" else f"{'tls+' if kind == 'tls' else ''}tcp://127.0.0.1:{free_port()}"
        made = Cluster(program, processes, tmp_path, url, data)
        return made.start() if start else made

    return make
