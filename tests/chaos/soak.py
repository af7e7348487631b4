#!/usr/bin/env python3
"""Runs a pool whose workers die again and again, for a given time, and checks that it loses little time and that nothing grows.

  ./dev soak                          3 minutes
  ./dev soak --hours 24 --seed 2      a day, with other victims
  ./dev soak --minutes 30 --json      prints the figures as one JSON object

A coordinator (tcp, loopback) trains one job after another with four workers. Every 15 seconds one of three workers is killed (-9), and replaced at once
or some seconds later; the fourth stays. Workers wait after each shard until 10 ms have passed (tests/tools/paced.c), so that they do not compete for cores.

All jobs must end with the digest of `coppice run`, the goodput must be at least 97 %, and neither the coordinator nor the fourth worker may grow. Growth
compares the last third of the time with the first: allocated memory, other mapped memory (tests/tools/heap_use.c) and descriptors after three jobs, and
resident memory after 90 seconds, because until then the allocator touches new pages of its arenas.

Goodput is the number of kept shards per second of workers' lives (from the start of a process to its end), divided by the same figure for the seconds
in which all four worked undisturbed (from 2 s after a replacement to the next death). The exit status is 1 if a promise is broken."""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import chaos

WORKERS = 4
BETWEEN_DEATHS = 15  # seconds
SETTLING = 2  # seconds after a replacement that do not count as undisturbed
ABSENCES = (0, 0, 0, 1, 3)  # seconds until a dead worker is replaced
PACE_MS = 10  # minimum time of a shard
SHARDS = 48
STEPS = 150
WARM_JOBS = 3  # growth is measured after this many jobs, when caches have reached their size
WARM_SECONDS = 90  # growth of resident memory is measured after this time, when arenas have reached their size
GOODPUT_LEAST = 0.97
ALLOCATED_MOST = 300_000  # limit of growth in bytes, for any length of run; for malloc and other mapped memory
MEMORY_MOST = 900_000  # limit of growth of resident bytes: less than a copy of the weights (250 KB) for each death
MEMORY_MOST_LONG = 4_000_000  # in runs of over ten minutes, for SQLite's page caches (2 MB each) and arenas; 250 KB per death would be 20 MB in 30 minutes
DESCRIPTORS_MOST = 2  # limit of growth of descriptors

SET = ["--set", f"train.steps={STEPS}", "--set", f"train.shards={SHARDS}", "--set", f"train.batch={SHARDS}", "--set", "model.1.linear.units=200",
       "--set", "evaluate.every=1000", "--set", "checkpoint.every=100"]


class Growth:
    """Records the allocated memory of a process (by malloc, and otherwise mapped), its descriptors, and its resident memory over time."""

    def __init__(self, process, heap_use):
        self.process, self.heap_use = process, heap_use / str(process.pid)
        self.allocated, self.mapped, self.descriptors, self.memory = [], [], [], []

    def sample(self, warm):
        allocated, mapped, resident = map(int, self.heap_use.read_text().split())
        self.allocated.append(allocated)
        self.mapped.append(mapped)
        self.descriptors.append(len(os.listdir(f"/proc/{self.process.pid}/fd")))
        if warm:
            self.memory.append(resident)

    def figures(self):
        if len(self.memory) < 3:
            raise chaos.Broken(f"fewer than {WARM_JOBS} jobs ended in {WARM_SECONDS} s: too few to measure growth")
        return {
            "memory_mb": round(statistics.median(thirds(self.memory)[1]) / 1e6, 2),
            "memory_more_bytes": min(more(min, self.memory), more(max, self.memory)),  # arenas vary by megabytes; a leak makes both minimum and maximum grow
            "allocated_mb": round(statistics.median(thirds(self.allocated)[1]) / 1e6, 2),
            "allocated_more_bytes": more(min, self.allocated),  # the minimum, because memory in use for a moment is not growth
            "mapped_mb": round(statistics.median(thirds(self.mapped)[1]) / 1e6, 2),
            "mapped_more_bytes": more(min, self.mapped),
            "descriptors": max(thirds(self.descriptors)[1]),
            "descriptors_more": more(max, self.descriptors),
        }


def thirds(samples):
    """The first and the last third."""
    third = len(samples) // 3
    return samples[:third], samples[-third:]


def more(of, samples):
    first, last = thirds(samples)
    return of(last) - of(first)


class Goodput:
    """Counts kept shards and worker-seconds; `undisturbed` is a part of `all`."""

    def __init__(self):
        self.sums = {"all": [0, 0.0], "undisturbed": [0, 0.0]}
        self.mark = None

    def add(self, now, shards, lived, undisturbed):
        if self.mark:
            for name in ("all", "undisturbed") if undisturbed and self.mark[2] else ("all",):
                self.sums[name][0] += shards - self.mark[0]
                self.sums[name][1] += lived - self.mark[1]
        self.mark = (shards, lived, undisturbed)

    def rate(self, name):
        shards, seconds = self.sums[name]
        return shards / seconds if seconds else 0.0


class Soak(chaos.OverIpc):
    """The pool, its deaths, and its measurements."""

    def __init__(self, programs, reference, folder, seed, seconds, report):
        super().__init__(programs, reference, folder, seed)
        self.seconds, self.report = seconds, report
        self.heap_use = folder / "heap"
        self.heap_use.mkdir()
        self.goodput, self.deaths, self.lived = Goodput(), 0, 0.0
        self.places = [None] * WORKERS  # (process, its start time), or (None, when to start one)
        self.due = [0.0] * WORKERS
        self.digests = []

    def address(self):
        self.listen = self.url = f"tcp://127.0.0.1:{chaos.free_port()}"

    def preloaded(self):
        return {"LD_PRELOAD": self.programs.parent / "tests/heap_use.so", "COPPICE_HEAP_USE": self.heap_use}

    def submit(self):
        self.job += 1
        self.client("submit", "job.yaml", "--data", ".", "--no-wait", *SET)

    # ---- workers ----

    def fill(self, now):
        for i, place in enumerate(self.places):
            if place is None and now >= self.due[i]:
                tool = self.programs.parent / "tests/paced"
                process = self.spawn("workers.log", tool, self.url, f"w{i}", PACE_MS, **self.environment(), **self.preloaded())
                self.places[i] = (process, time.monotonic())
                self.disturbed = time.monotonic() + SETTLING

    def kill(self, now):
        i = 1 + self.random.randrange(WORKERS - 1)  # the first worker stays
        if self.places[i] is None:
            return
        process, since = self.places[i]
        self.end(process)
        self.lived += time.monotonic() - since
        self.places[i] = None
        self.due[i] = now + self.random.choice(ABSENCES)
        self.deaths += 1

    def all_lived(self):
        now = time.monotonic()
        return self.lived + sum(now - place[1] for place in self.places if place)

    # ---- one job after another ----

    def progress(self):
        """The number of steps of all jobs. Submits the next job when the last one is about to end."""
        status = self.status()
        if status["state"] in ("FAILED", "CANCELED"):
            raise chaos.Broken(f"job {self.job} is {status['state']}: {status.get('error')}")
        steps = (self.job - 1) * STEPS + status.get("step", 0)
        previous = self.job - 1
        if previous > len(self.digests):
            before = json.loads(self.client("status", str(previous), "--json"))
            steps += before["step"] - STEPS
            if before["state"] == "COMPLETED":
                self.check(before["digest"])
        elif status.get("step", 0) >= STEPS - 15:
            self.submit()
        return steps

    def check(self, digest):
        if digest != self.reference.digest:
            raise chaos.Broken(f"job {len(self.digests) + 1}: digest {digest}, expected {self.reference.digest}")
        self.digests.append(digest)
        self.client("rm", str(len(self.digests)))  # as an operator of a long-running service does

    def look(self):
        for place in self.places:
            if place and place[0].poll() is not None:
                raise chaos.Broken(f"a worker ended unexpectedly with {place[0].returncode}")
        now = time.monotonic()
        calm = all(self.places) and now >= self.disturbed
        shards = self.progress() * SHARDS
        self.goodput.add(now, shards, self.all_lived(), calm)
        if len(self.digests) >= WARM_JOBS:
            for growth in self.growth.values():
                growth.sample(now >= self.began + WARM_SECONDS)

    def go(self):
        try:
            self.start_pool()
            self.began = time.monotonic()
            until, death = self.began + self.seconds, self.began + BETWEEN_DEATHS
            while time.monotonic() < until:
                now = time.monotonic()
                if now >= death:
                    self.look()  # the undisturbed time ends here
                    self.kill(now)
                    death += BETWEEN_DEATHS
                self.fill(now)
                self.look()
                self.report(self, now - self.began)
                time.sleep(0.5)
            self.look()
            self.finish()
        finally:
            self.close()

    def start_pool(self):
        self.ready, self.job, self.disturbed = 0, 0, 0.0
        self.address()
        self.start_coordinator()
        self.submit()
        self.fill(time.monotonic())
        self.growth = {"coordinator": Growth(self.coordinator, self.heap_use), "worker": Growth(self.places[0][0], self.heap_use)}
        deadline = time.monotonic() + 30
        while self.status().get("step", 0) < 20:
            if time.monotonic() > deadline:
                raise chaos.Broken("training has not begun")
            time.sleep(0.2)

    def finish(self):
        """Waits until unfinished jobs have ended."""
        deadline = time.monotonic() + 120
        while len(self.digests) < self.job:
            status = json.loads(self.client("status", str(len(self.digests) + 1), "--json"))
            if status["state"] == "COMPLETED":
                self.check(status["digest"])
            elif time.monotonic() > deadline:
                raise chaos.Broken("the last job has not ended")
            time.sleep(0.2)

    def figures(self):
        whole, calm = self.goodput.rate("all"), self.goodput.rate("undisturbed")
        return {
            "seconds": round(self.seconds), "deaths": self.deaths, "jobs": len(self.digests), "shards": self.goodput.sums["all"][0],
            "goodput": round(whole / calm, 4) if calm else 0.0, "busy": round(whole * PACE_MS / 1000, 4),
            "busy_undisturbed": round(calm * PACE_MS / 1000, 4), "undisturbed_share": round(self.goodput.sums["undisturbed"][1] / self.goodput.sums["all"][1], 3),
            "digest": self.reference.digest, **{name: growth.figures() for name, growth in self.growth.items()},
        }


class Reference:
    """The digest of the job in one process."""

    def __init__(self, programs, folder):
        self.folder = folder
        chaos.make_job(folder)
        done = subprocess.run(
            [programs / "coppice", "run", "job.yaml", "--json", "--quiet", "--out", "reference", *SET], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise chaos.Broken(done.stderr.strip())
        self.digest = json.loads(done.stdout.splitlines()[-1])["digest"]


def broken(figures):
    """The promises broken by these figures."""
    wrong = []
    if figures["goodput"] < GOODPUT_LEAST:
        wrong.append(f"goodput is {figures['goodput']:.3f}, expected at least {GOODPUT_LEAST}")
    most = {
        "allocated_more_bytes": ALLOCATED_MOST,
        "mapped_more_bytes": ALLOCATED_MOST,
        "memory_more_bytes": MEMORY_MOST_LONG if figures.get("seconds", 0) > 600 else MEMORY_MOST,
        "descriptors_more": DESCRIPTORS_MOST,
    }
    for name in ("coordinator", "worker"):
        for what, bound in most.items():
            if figures[name][what] > bound:
                wrong.append(f"the {name}: {what} is {figures[name][what]}, expected at most {bound}")
    return wrong


def run(programs, folder, seed, seconds, report=lambda soak, passed: None):
    """Runs in the empty folder `folder`; returns the figures. Raises chaos.Broken if a job goes wrong."""
    for name in ("reference", "run"):
        (folder / name).mkdir()
    soak = Soak(programs, Reference(programs, folder / "reference"), folder / "run", seed, seconds, report)
    soak.go()
    return soak.figures()


def show_progress(soak, passed):
    line = (f"{passed:5.0f} of {soak.seconds:.0f} s  {soak.deaths} deaths  {len(soak.digests)} jobs  "
            f"busy {100 * soak.goodput.rate('all') * PACE_MS / 1000:.1f} %")
    if sys.stderr.isatty():
        print(f"\r{line}", end="", file=sys.stderr, flush=True)
    elif int(passed) // 60 > getattr(soak, "reported", -1):
        soak.reported = int(passed) // 60
        print(line, file=sys.stderr, flush=True)


def main():
    options = argparse.ArgumentParser(prog="./dev soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = options.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=3)
    length.add_argument("--hours", type=float)
    options.add_argument("--seed", type=int, default=1, help="seed for the victims and the times of their absence (default: 1)")
    options.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    o = options.parse_args()
    seconds = o.minutes * 60 if o.hours is None else o.hours * 3600
    if not seconds >= 120:
        options.error("expected at least two minutes: less has too few deaths for a result")
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        try:
            figures = run(chaos.find_programs(), pathlib.Path(top), o.seed, seconds, show_progress)
        except chaos.Broken as error:
            sys.exit(f"soak: FAILED: {error}")
    wrong = broken(figures)
    print(json.dumps({**figures, "broken": wrong}) if o.json else
          "\n".join(f"{name:18} {json.dumps(value)}" for name, value in figures.items()))
    for sentence in wrong:
        print(f"soak: FAILED: {sentence}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
