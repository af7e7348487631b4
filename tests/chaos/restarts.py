#!/usr/bin/env python3
"""Kills (-9) a coordinator at random moments, again and again, while jobs are submitted and trained.

  ./dev chaos restarts --kills 300

Each acknowledged submission must exist after every restart, with the same number for the same key. All jobs must end with the digest and the history
of an undisturbed job. Prints the seconds until the coordinator answers again, and the number of steps that were computed twice."""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

import chaos

WORKERS = 2  # chaos.Pool starts them; they are not disturbed here
STEPS_OF_SMALL = 40
KEYS_KEPT = 256  # the coordinator keeps the keys of the newest submissions (docs/reference/protocol.md)


class Restarts(chaos.OverIpc):
    """Kills the coordinator, while another thread submits jobs."""

    SLOW_DISKS = 0

    def __init__(self, programs, reference, folder, seed, kills):
        super().__init__(programs, reference, folder, seed)
        self.kills = kills
        self.acknowledged = {}  # key -> job number
        self.seconds, self.redone = [], []
        self.ending = threading.Event()
        self.error = None

    def submit_for_ever(self):
        """Submits a key repeatedly until it is acknowledged, then the next key."""
        number = 0
        small = ["--data", ".", "--set", f"train.steps={STEPS_OF_SMALL}", "--set", "checkpoint.every=10"]
        while not self.ending.is_set():
            key = f"small-{number}"
            done = subprocess.run(
                [self.programs / "coppice", "submit", "job.yaml", "--no-wait", "--json", "--once", key, "--timeout", "20", *small],
                cwd=self.folder, capture_output=True, text=True, env={**os.environ, **self.environment()}, check=False,
            )
            if done.returncode == 0:
                self.acknowledged[key] = json.loads(done.stdout)["job"]
                number += 1
            elif done.returncode == 2:
                self.error = done.stderr
                return
            self.ending.wait(0.2)

    def jobs(self):
        if len(self.living()) < WORKERS:
            raise chaos.Broken("a worker has ended: see workers.log")
        return {job["job"]: job for job in json.loads(self.client("jobs", "--json", "--timeout", "60"))["jobs"]}

    def kill_once(self):
        known = dict(self.acknowledged)
        before = self.status()["step"]
        time.sleep(self.random.uniform(0, 0.5))
        self.end_coordinator()
        if self.random.random() < 0.2:  # kill it again, while it starts
            self.coordinator = self.spawn(
                "second.log", self.programs / "coppice-coordinator", "--listen", self.listen, "--state", "state"
            )
            time.sleep(self.random.uniform(0, 0.1))
            self.end_coordinator()
        began = time.monotonic()
        self.start_coordinator()
        there = self.jobs()
        self.seconds.append(time.monotonic() - began)
        for key, job in known.items():
            if job not in there:
                raise chaos.Broken(f"job {job} ({key}) was acknowledged but is missing")
        self.redone.append(max(0, before - there[self.job].get("step", 0)))

    def go(self):
        try:
            self.start()
            submitter = threading.Thread(target=self.submit_for_ever)
            submitter.start()
            try:
                for _ in range(self.kills):
                    self.kill_once()
                    if self.error:
                        raise chaos.Broken(self.error)
                    if self.status()["state"] == "COMPLETED":
                        self.check(self.job)
                        self.submit()
            finally:
                self.ending.set()
                submitter.join()
            self.wait_for_all()
            self.judge()
        finally:
            self.close()

    def wait_for_all(self):
        """Waits until every job has ended. Raises Broken if no job ends for a minute."""
        left, since = None, time.monotonic()
        while True:
            waiting = [job for job in self.jobs().values() if job["state"] != "COMPLETED"]
            if not waiting:
                return
            now = (len(waiting), sum(job.get("step", 0) for job in waiting))
            if now != left:
                left, since = now, time.monotonic()
            if time.monotonic() > since + 60:
                raise chaos.Broken(f"{len(waiting)} jobs have not ended: {json.dumps(waiting[:3])}; {self.client('workers', '--json')}")
            time.sleep(0.2)

    def check(self, job):
        digest = json.loads(self.client("status", str(job), "--json"))["digest"]
        if digest != self.reference.digest:
            raise chaos.Broken(f"job {job}: digest {digest}, expected {self.reference.digest}")

    def judge(self):
        jobs = self.jobs()
        digests = {jobs[job]["digest"] for job in self.acknowledged.values()}
        if len(digests) > 1:
            raise chaos.Broken(f"the small jobs have {len(digests)} digests")
        if len(set(self.acknowledged.values())) != len(self.acknowledged):
            raise chaos.Broken("two keys name the same job")
        newest = list(self.acknowledged.items())[-KEYS_KEPT // 2:]
        for key, job in (newest[0], newest[len(newest) // 2], newest[-1]):  # the same key must name the same job
            again = json.loads(self.client(
                "submit", "job.yaml", "--data", ".", "--no-wait", "--json", "--once", key,
                "--set", f"train.steps={STEPS_OF_SMALL}", "--set", "checkpoint.every=10"))["job"]
            if again != job:
                raise chaos.Broken(f"{key} was job {job}, but is now job {again}")
        super().judge()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def run(programs, reference, folder, seed, kills):
    """Returns the figures. Raises chaos.Broken."""
    restarts = Restarts(programs, reference, folder, seed, kills)
    restarts.go()
    return {
        "kills": kills, "submissions": len(restarts.acknowledged),
        "seconds_to_serve": {"median": percentile(restarts.seconds, 0.5), "p99": percentile(restarts.seconds, 0.99), "most": max(restarts.seconds)},
        "steps_redone": {"median": percentile(restarts.redone, 0.5), "most": max(restarts.redone)},
    }


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=300)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", action="store_true", help="keep the folder of a run that fails")
    o = options.parse_args()
    programs = chaos.find_programs()
    with tempfile.TemporaryDirectory(prefix="restarts-") as top:
        for name in ("reference", "run"):
            pathlib.Path(top, name).mkdir()
        reference = chaos.Reference(programs, pathlib.Path(top, "reference"))
        try:
            print(json.dumps(run(programs, reference, pathlib.Path(top, "run"), o.seed, o.kills)))
        except chaos.Broken as broken:
            if o.keep:
                chaos.keep(pathlib.Path(top, "run"), f"restarts-{o.seed}")
            sys.exit(f"restarts: FAILED: {broken}")


if __name__ == "__main__":
    main()
