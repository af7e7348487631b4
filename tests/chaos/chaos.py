#!/usr/bin/env python3
"""Runs one job repeatedly on real processes with seeded faults, and checks that the digest is always the same.

  ./dev chaos --runs 100              runs with the seeds 1 to 100
  ./dev chaos --runs 1 --seed 17      repeats one of them

The seed decides whether a run is in process, over ipc or over tcp. A run ends after its job has ended and at least five faults have
happened. The digest, each epoch's training loss and each step of the history must equal those of an undisturbed run, so every sample was
counted exactly once per epoch. The seed decides the faults, but their exact times depend on the machine."""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

from integration_tools import free_port, write_patterns  # noqa: E402

from proxy import Proxy  # noqa: E402

KINDS = ("process", "ipc", "tcp")
FAULTS_LEAST = 5
STEPS = 1500
PATIENCE = 120  # seconds after which a run counts as hung

JOB = f"""
name: chaos
seed: 11
data: {{source: idx, train: {{images: train-images, labels: train-labels}}, test: {{images: test-images, labels: test-labels}}}}
model:
  - dropout: {{p: 0.2}}
  - linear: {{units: 150, max_norm: 2.0}}
  - relu
  - dropout: {{p: 0.5, scope: shard}}
  - linear: {{units: 5}}
train: {{steps: {STEPS}, batch: 50, shards: 6}}
optimizer: {{sgd: {{rate: 0.1, momentum: 0.9, schedule: cosine}}}}
evaluate: {{every: 20}}
checkpoint: {{every: 100, keep: 2}}
"""


def catches(process, number):
    """Returns whether the process has a handler for the signal."""
    handlers = pathlib.Path(f"/proc/{process.pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(handlers, 16) >> (number - 1) & 1)


class Broken(Exception):
    """A promise was broken."""


def make_job(folder, wire="f32"):
    """Writes the job and its data, noisy patterns of five classes, which are always the same."""
    write_patterns(folder, (("train", 620), ("test", 130)))
    (folder / "job.yaml").write_text(JOB.replace("shards: 6", f"shards: 6, wire: {wire}"))


def history(path, job):
    """The epochs and steps in a store, with exact figures."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        epochs = store.execute("SELECT step, train_loss, train_error FROM epochs WHERE job = ? ORDER BY step", (job,)).fetchall()
        steps = store.execute("SELECT step, loss FROM steps WHERE job = ? ORDER BY step", (job,)).fetchall()
    return epochs, steps


class Reference:
    """The undisturbed run."""

    def __init__(self, programs, folder, wire="f32"):
        self.folder = folder
        make_job(folder, wire)
        done = subprocess.run(
            [programs / "coppice", "run", "job.yaml", "--workers", "2", "--json", "--quiet", "--out", "reference"],
            cwd=folder, capture_output=True, text=True, check=True,
        )
        self.digest = json.loads(done.stdout.splitlines()[-1])["digest"]
        with sqlite3.connect(folder / "reference/metrics.sqlite") as store:
            (job,) = store.execute("SELECT DISTINCT job FROM steps").fetchone()
        self.epochs, self.steps = history(folder / "reference/metrics.sqlite", job)
        assert [step for step, _ in self.steps] == list(range(1, STEPS + 1)) and self.epochs


class Run:
    """The common part of all kinds of runs: processes, faults, checks."""

    def __init__(self, programs, reference, folder, seed):
        self.programs, self.reference, self.folder = programs, reference, folder
        self.random = random.Random(seed)
        self.most = self.random.randint(8, 16)  # number of faults; then the job may end undisturbed
        self.faults = collections.Counter()
        self.alive, self.frozen = [], {}
        for name in ("job.yaml", "train-images", "train-labels", "test-images", "test-labels"):
            os.symlink(reference.folder / name, folder / name)

    def spawn(self, log, *command, **environment):
        with open(self.folder / log, "a") as out:
            process = subprocess.Popen(
                [str(word) for word in command], cwd=self.folder, stdout=out, stderr=out,
                env={**os.environ, **{k: str(v) for k, v in environment.items()}},
            )
        self.alive.append(process)
        return process

    def slow_disk(self, chance, ms):
        """The environment of a program whose disk, with probability `chance`, is slower by `ms` milliseconds at each sync."""
        if not chance or self.random.random() >= chance:
            return {}
        return {"LD_PRELOAD": self.programs.parent / "tests/slow_disk.so", "COPPICE_SLOW_DISK_MS": ms}

    def end(self, process, number=signal.SIGKILL):
        if process.poll() not in (None, 0, -signal.SIGKILL):  # deaths.py has killed it
            raise Broken(f"{' '.join(map(str, process.args))} had ended with {process.returncode}")
        self.frozen.pop(process, None)
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.wait(60)
        self.alive.remove(process)

    def freeze(self, process, seconds):
        process.send_signal(signal.SIGSTOP)
        self.frozen[process] = time.monotonic() + seconds

    def thaw(self):
        for process, until in list(self.frozen.items()):
            if time.monotonic() >= until:
                process.send_signal(signal.SIGCONT)
                del self.frozen[process]

    def close(self):
        for process in list(self.alive):
            process.kill()
            process.wait()

    def go(self):
        try:
            self.start()
            deadline = time.monotonic() + PATIENCE
            while not self.done():
                if time.monotonic() > deadline:
                    raise Broken(f"the job did not end within {PATIENCE} s")
                self.thaw()
                if sum(self.faults.values()) < self.most:
                    self.strike()
                time.sleep(self.random.uniform(0.02, 0.3))
            self.judge()
        finally:
            self.close()

    def strike(self):
        names = [name for name, weight in self.FAULTS.items() for _ in range(weight)]
        name = self.random.choice(names)
        if getattr(self, name)() is not False:
            self.faults[name] += 1

    def compare(self, digest, store, job):
        if digest != self.reference.digest:
            raise Broken(f"digest {digest}, expected {self.reference.digest}")
        for found, expected, what in zip(history(store, job), (self.reference.epochs, self.reference.steps), ("epochs", "steps")):
            wrong = sorted(set(found) ^ set(expected))
            if wrong:
                raise Broken(f"the history of {what} differs in {len(wrong)} rows, {wrong[:4]}: a sample was counted twice or not at all")


class InProcess(Run):
    """`coppice run`, which is killed, frozen, stopped and resumed."""

    FAULTS = {"kill": 3, "terminate": 2, "requeue": 1, "stall": 2}

    def start(self):
        self.process = self.spawn(
            "run.log", self.programs / "coppice", "run", "job.yaml", "--workers", self.random.choice([1, 2, 3]),
            "--out", "run", "--resume", "auto", "--json", "--quiet", **self.slow_disk(0.3, 20),
        )

    def done(self):
        if self.process.poll() is None:
            return False
        self.alive.remove(self.process)
        if self.process.returncode != 0:
            raise Broken(f"coppice run ended with {self.process.returncode}")
        if sum(self.faults.values()) >= FAULTS_LEAST:
            return True
        shutil.rmtree(self.folder / "run")  # it ended before all faults happened: start it again
        self.start()
        return False

    def interrupt(self, number, statuses):
        time.sleep(self.random.uniform(0, 0.3))
        if self.process.poll() is not None:
            return False
        self.end(self.process, number)
        if self.process.returncode == 0:  # it had already ended
            self.alive.append(self.process)
            return False
        if self.process.returncode not in statuses:
            raise Broken(f"signal {number}: exit status {self.process.returncode}")
        self.start()
        return True

    def kill(self):
        return self.interrupt(signal.SIGKILL, [-signal.SIGKILL])

    # Before its handlers are installed, a signal ends it like any program.
    def terminate(self):
        return self.interrupt(signal.SIGTERM, [1, -signal.SIGTERM])

    def requeue(self):
        return self.interrupt(signal.SIGUSR1, [1, -signal.SIGUSR1])

    def stall(self):
        if self.process.poll() is not None or self.process in self.frozen:
            return False
        self.freeze(self.process, self.random.uniform(0.05, 0.4))
        return True

    def judge(self):
        result = json.loads((self.folder / "run.log").read_text().splitlines()[-1])
        with sqlite3.connect(self.folder / "run/metrics.sqlite") as store:
            (job,) = store.execute("SELECT DISTINCT job FROM steps").fetchone()
        self.compare(result["digest"], self.folder / "run/metrics.sqlite", job)


class Pool(Run):
    """A coordinator and workers, as processes."""

    FAULTS = {
        "kill_worker": 5, "freeze_worker": 3, "join": 4, "leave": 2, "drain": 1, "twin": 1, "kill_coordinator": 2,
        "restart_coordinator": 1, "freeze_coordinator": 1, "garbage": 2, "pause": 1,
    }
    WORKERS_MOST = 4
    SLOW_DISKS = 0.3  # share of coordinators with slow syncs

    def start(self):
        self.count = 0
        self.ready = 0
        self.workers, self.leaving = {}, set()
        self.address()
        self.start_coordinator()
        for _ in range(2):
            self.join()
        self.submitted = 0
        self.submit()

    def submit(self):
        self.submitted += 1
        answer = self.client("submit", "job.yaml", "--data", ".", "--no-wait", "--json", "--once", f"chaos-{self.submitted}")
        self.job = json.loads(answer)["job"]

    def address(self):
        self.listen = self.url = f"ipc://{self.folder}/socket"

    def environment(self):
        return {"COPPICE_COORDINATOR": self.url, "COPPICE_TOKEN": (self.folder / "state/token").read_text().strip()}

    def client(self, *arguments):
        done = subprocess.run(
            [self.programs / "coppice", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, **self.environment()}, check=False,
        )
        if done.returncode != 0:
            raise Broken(f"coppice {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def status(self):
        return json.loads(self.client("status", str(self.job), "--json", "--timeout", "60"))

    def preloaded(self):
        """Environment variables of the coordinator."""
        return self.slow_disk(self.SLOW_DISKS, 30)

    def start_coordinator(self):
        self.coordinator = self.spawn(
            "coordinator.log", self.programs / "coppice-coordinator", "--listen", self.listen, "--state", "state",
            **self.preloaded(),
        )
        deadline = time.monotonic() + 30
        while (self.folder / "coordinator.log").read_text().count("ready:") <= self.ready:
            if self.coordinator.poll() is not None or time.monotonic() > deadline:
                raise Broken("the coordinator has not started")
            time.sleep(0.02)
        self.ready += 1

    def done(self):
        self.living()
        if not self.workers:
            self.join()
        status = self.status()
        if status["state"] == "PAUSED":
            self.client("resume", str(self.job))
        elif status["state"] in ("FAILED", "CANCELED"):
            raise Broken(f"the job is {status['state']}: {status.get('error')}")
        if status["state"] != "COMPLETED":
            return False
        if sum(self.faults.values()) < FAULTS_LEAST:
            self.submit()  # it ended before all faults happened: submit it again
            return False
        return True

    def judge(self):
        digest = self.status()["digest"]
        self.end_coordinator(signal.SIGTERM)
        if self.coordinator.returncode != 0:
            raise Broken(f"the coordinator ended with {self.coordinator.returncode}")
        (store,) = (self.folder / "state").glob("*.sqlite")
        self.compare(digest, store, self.job)

    def living(self):
        for name, process in list(self.workers.items()):
            if process.poll() is not None:
                if process.returncode not in (0, -signal.SIGKILL):
                    raise Broken(f"worker {name} ended with {process.returncode}")
                del self.workers[name]
                self.alive.remove(process)
        busy = self.frozen.keys() | self.leaving
        return [name for name, process in self.workers.items() if process not in busy]

    def some_worker(self):
        names = self.living()
        return self.random.choice(names) if names else None

    # ---- faults; they return False if there is no target ----

    def join(self, name=None):
        if len(self.workers) >= self.WORKERS_MOST:
            return False
        self.count += 1
        name = name or f"w{self.count}"
        isa = self.random.choice([{}, {}, {"COPPICE_ISA": "avx2"}, {"COPPICE_ISA": "baseline"}])
        self.workers[f"{name}/{self.count}"] = self.spawn(
            "workers.log", self.programs / "coppice-worker", "--name", name, "--threads", self.random.choice([1, 2]),
            **self.environment(), **isa,
        )
        return True

    def twin(self):
        """Starts another worker with the same name."""
        name = self.some_worker()
        return self.join(name.split("/")[0]) if name else False

    def kill_worker(self):
        name = self.some_worker()
        if not name:
            return False
        self.end(self.workers.pop(name))
        return True

    def freeze_worker(self):
        name = self.some_worker()
        if not name:
            return False
        self.freeze(self.workers[name], self.random.choice([0.1, 0.5, 2.0]))
        return True

    def leave(self):
        name = self.some_worker()
        if not name:
            return False
        process = self.workers[name]
        if not catches(process, signal.SIGTERM):
            return False  # it has just started: the signal would end it, like any program
        process.send_signal(signal.SIGTERM)
        self.leaving.add(process)  # a second signal would end it at once
        return True

    def drain(self):
        name = self.some_worker()
        if not name:
            return False
        subprocess.run(
            [self.programs / "coppice", "drain", name.split("/")[0]], capture_output=True, check=False,
            env={**os.environ, **self.environment()}, timeout=PATIENCE,
        )
        return True

    def end_coordinator(self, number=signal.SIGKILL):
        if self.coordinator.poll() is not None:
            raise Broken(f"the coordinator had ended with {self.coordinator.returncode}")
        self.end(self.coordinator, number)

    def kill_coordinator(self):
        self.end_coordinator()
        time.sleep(self.random.choice([0, 0.1, 0.5]))
        self.start_coordinator()
        return True

    def restart_coordinator(self):
        self.end_coordinator(signal.SIGTERM)
        if self.coordinator.returncode != 0:
            raise Broken(f"the coordinator ended with {self.coordinator.returncode}")
        self.start_coordinator()
        return True

    def freeze_coordinator(self):
        self.coordinator.send_signal(signal.SIGSTOP)
        time.sleep(self.random.choice([0.1, 1.0]))
        self.coordinator.send_signal(signal.SIGCONT)
        return True

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(self.folder / "socket"))
        return peer

    def garbage(self):
        """Sends random bytes, or an SP handshake followed by random bytes."""
        with self.connect() as peer:
            peer.settimeout(1)
            greeting = b"\0SP\0\0\x30\0\0" if self.random.random() < 0.5 else b""
            try:
                peer.sendall(greeting + self.random.randbytes(self.random.choice([1, 100, 100000])))
            except OSError:
                pass  # the coordinator may close the connection
        return True

    def pause(self):
        if self.status()["state"] not in ("QUEUED", "RUNNING"):
            return False
        subprocess.run(
            [self.programs / "coppice", "pause", str(self.job)], capture_output=True, check=False,
            env={**os.environ, **self.environment()}, timeout=PATIENCE,
        )  # it may have ended meanwhile; `done` resumes it
        return True


class OverIpc(Pool):
    """As above."""


class OverTcp(Pool):
    """As Pool, with workers behind a network that is cut and partitioned."""

    FAULTS = {**Pool.FAULTS, "cut": 3, "partition": 2}

    def address(self):
        port = free_port()
        self.listen = f"tcp://127.0.0.1:{port}"
        self.proxy = Proxy(port)
        self.url = self.listen
        self.healing = None

    def environment(self):
        return {**super().environment(), "COPPICE_COORDINATOR": f"tcp://127.0.0.1:{self.proxy.port}"}

    def client(self, *arguments):
        return super().client(*arguments, "--coordinator", self.listen)

    def connect(self):
        return socket.create_connection(("127.0.0.1", int(self.listen.rsplit(":", 1)[1])), timeout=5)

    def done(self):
        if self.healing and time.monotonic() >= self.healing:
            self.proxy.heal()
            self.healing = None
        return super().done()

    def cut(self):
        return self.proxy.cut() > 0

    def partition(self):
        if self.healing:
            return False
        self.proxy.stall()
        self.healing = time.monotonic() + self.random.choice([0.2, 0.6, 2.0])
        return True

    def close(self):
        super().close()
        if hasattr(self, "proxy"):
            self.proxy.close()


def run_seed(programs, reference, folder, seed):
    """Runs one seed in `folder` (empty); returns its kind and faults. Raises Broken."""
    kind = KINDS[seed % len(KINDS)]
    run = {"process": InProcess, "ipc": OverIpc, "tcp": OverTcp}[kind](programs, reference, folder, seed)
    run.go()
    return kind, run.faults


def keep(folder, name):
    """Copies the folder of a run into the current one."""
    shutil.copytree(folder, name, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("socket"))


def find_programs():
    """The folder of the programs under test."""
    found = shutil.which("coppice", path=os.environ.get("COPPICE_BIN", os.environ["PATH"]))
    if not found:
        sys.exit("chaos: no coppice on PATH or in COPPICE_BIN")
    return pathlib.Path(found).resolve().parent


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=20)
    options.add_argument("--seed", type=int, default=1, help="seed of the first run (default: 1)")
    options.add_argument("--keep", action="store_true", help="keep the folder of a run that fails")
    o = options.parse_args()
    programs = find_programs()
    failures, total = 0, collections.Counter()
    with tempfile.TemporaryDirectory(prefix="chaos-") as top:
        folder = pathlib.Path(top, "reference")
        folder.mkdir()
        reference = Reference(programs, folder)
        print(f"expected digest {reference.digest}", flush=True)
        for seed in range(o.seed, o.seed + o.runs):
            folder = pathlib.Path(top, str(seed))
            folder.mkdir()
            began = time.monotonic()
            try:
                kind, faults = run_seed(programs, reference, folder, seed)
                total.update(faults)
                print(f"seed {seed}: {kind}, {sum(faults.values())} faults, {time.monotonic() - began:.1f} s", flush=True)
                shutil.rmtree(folder)
            except Broken as broken:
                failures += 1
                print(f"seed {seed}: FAILED: {broken}\n  repeat: ./dev chaos --runs 1 --seed {seed} --keep", flush=True)
                if o.keep:
                    keep(folder, f"chaos-{seed}")
    print(f"{o.runs - failures} of {o.runs} runs with one digest; {sum(total.values())} faults: "
          + ", ".join(f"{name} {count}" for name, count in sorted(total.items())))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
