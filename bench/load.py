#!/usr/bin/env python3
"""Loads one coordinator with many workers and a long queue, over tcp on loopback. Real workers (all in one process, two connections each)
train a job with twice as many shards, up to 1024, while thousands of jobs are submitted over the wire; then the queue is listed and served.
Prints one JSON line: how long the coordinator's loop did not look for messages, how long a submission and the list take, the coordinator's
memory. Checks every digest.

  ./dev bench load                                 500 workers, 10,000 jobs, served for 30 s
  ./dev exec bench/load.py --workers 100 --jobs 500 --seconds 600      (ends earlier when the queue is empty)"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

QUICK = """name: quick
seed: 7
data: {source: idx, train: {images: images, labels: labels}, test: {images: images, labels: labels}}
model: [{linear: {units: 8}}, relu, dropout, {linear: {units: 3}}]
train: {steps: 3, batch: 30, shards: 3}
optimizer: {sgd: {rate: 0.1}}
"""
LONG = """name: long
priority: 1
data: {{source: idx, train: {{images: images, labels: labels}}, test: {{images: images, labels: labels}}}}
model: [{{linear: {{units: 32}}}}, relu, dropout, {{linear: {{units: 3}}}}]
train: {{steps: 100000000, batch: {shards}, shards: {shards}}}
optimizer: {{sgd: {{rate: 0.01}}}}
checkpoint: {{every: 1000000}}
"""
TIMEOUT = 120  # seconds, of each call and wait


def make_data(folder, count):
    pixels = bytes((17 * i + 5 * (i // 16) ** 2) % 251 for i in range(16 * count))
    (folder / "images").write_bytes(struct.pack(">IIII", 0x803, count, 4, 4) + pixels)
    (folder / "labels").write_bytes(struct.pack(">II", 0x801, count) + bytes(i % 3 for i in range(count)))


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Load:
    def __init__(self, programs, folder, workers, jobs):
        self.programs, self.folder, self.workers, self.jobs = programs, folder, workers, jobs
        self.crowd = programs.parent / "tests/crowd"
        self.started = []
        make_data(folder, 1024)
        (folder / "quick.yaml").write_text(QUICK)
        (folder / "long.yaml").write_text(LONG.format(shards=min(1024, 2 * workers)))

    def client(self, *words):
        done = subprocess.run([self.programs / "coppice", *words], env=self.environment, cwd=self.folder, capture_output=True, text=True,
                              check=False, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def spawn(self, *command, **options):
        self.started.append(subprocess.Popen(command, env=self.environment, cwd=self.folder, **options))
        return self.started[-1]

    def wait(self, what, condition, seconds=TIMEOUT):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, what
            time.sleep(0.2)
        return found

    def coordinator(self):
        return self.client("workers", "--json")["coordinator"]

    def start(self):
        done = subprocess.run([self.programs / "coppice", "run", "quick.yaml", "--data", ".", "--out", "run", "--json", "--quiet"],
                              cwd=self.folder, capture_output=True, text=True, check=True)
        self.digest = json.loads(done.stdout.splitlines()[-1])["digest"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"tcp://127.0.0.1:{port}"
        self.environment = {**os.environ, "COPPICE_COORDINATOR": url}
        log = open(self.folder / "log", "w")
        self.spawn(self.programs / "coppice-coordinator", "--listen", url, "--state", "state", stderr=log)
        self.wait("the coordinator did not start", lambda: "ready:" in (self.folder / "log").read_text())
        self.environment["COPPICE_TOKEN"] = (self.folder / "state/token").read_text().strip()
        self.spawn(self.crowd, "workers", str(self.workers), stdin=subprocess.PIPE, preexec_fn=lambda: os.nice(19))  # on a real pool they have their own cores
        self.wait("not all workers joined", lambda: self.coordinator()["workers"] == self.workers)

    def submit(self):
        """Submits the long job, which keeps all workers busy, then the queue. Returns the timings of the submissions."""
        self.client("submit", "long.yaml", "--data", ".", "--no-wait")
        self.wait("the long job does not train", lambda: self.client("status", "1", "--json")["step"] > 10)
        url = self.environment["COPPICE_COORDINATOR"]
        digest = self.client("data", "list", "--coordinator", url, "--json")["sets"][0]["digest"]
        done = subprocess.run([self.crowd, "submit", str(self.jobs), "quick.yaml", digest], env=self.environment, cwd=self.folder,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def list(self):
        seconds = []
        for _ in range(5):
            began = time.monotonic()
            jobs = self.client("jobs", "--json")["jobs"]
            seconds.append(time.monotonic() - began)
            assert [job["job"] for job in jobs] == list(range(self.jobs + 1, 0, -1)), "expected each job once, newest first"
        return percentile(seconds, 0.5)

    def serve(self, seconds):
        """Cancels the long job and serves the queue. Returns how many jobs were served, and in what time."""
        before = self.client("status", "1", "--json")["step"]
        self.wait("the long job does not step", lambda: self.client("status", "1", "--json")["step"] > before)
        self.client("cancel", "1")
        began, count = time.monotonic(), 0
        while time.monotonic() < began + seconds and count < self.jobs:
            time.sleep(1)
            states = [job["state"] for job in self.client("jobs", "--json")["jobs"]]
            count = states.count("COMPLETED")
        took = time.monotonic() - began
        done = [job for job in self.client("jobs", "--json")["jobs"] if job["state"] == "COMPLETED"]
        assert done and {job["digest"] for job in done} == {self.digest}, "expected the digest of coppice run"
        return count, took

    def close(self):
        for process in reversed(self.started):
            if process.stdin:
                process.stdin.close()
            else:
                process.terminate()
            process.wait(TIMEOUT)


def run(programs, folder, workers, jobs, seconds):
    load = Load(programs, folder, workers, jobs)
    try:
        load.start()
        submissions = load.submit()
        figures = {"workers": workers, "jobs": jobs, "submissions_per_s": round(jobs / submissions["seconds"]), "submission_longest_ms": submissions["longest_ms"]}
        figures["submitted"] = load.coordinator()["stalls"]
        figures["list_s"] = round(load.list(), 3)
        figures["listed"] = load.coordinator()["stalls"]
        count, took = load.serve(seconds)
        now = load.coordinator()
        figures |= {"served": count, "served_per_s": round(count / took, 1), "mb": round(now["rss"] / 1e6), "stalls": now["stalls"]}
        assert now["workers"] == workers, "a worker was lost"
        return figures
    finally:
        load.close()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=500)
    options.add_argument("--jobs", type=int, default=10000)
    options.add_argument("--seconds", type=int, default=30, help="longest time to serve the queue (default: 30)")
    o = options.parse_args()
    programs = pathlib.Path(shutil.which("coppice", path=os.environ.get("COPPICE_BIN", os.environ["PATH"]))).resolve().parent
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        figures = run(programs, pathlib.Path(folder), o.workers, o.jobs, o.seconds)
    print(json.dumps({"bench": "load", **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
