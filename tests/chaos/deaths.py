#!/usr/bin/env python3
"""Measures how soon a worker's death is noticed, and how soon another worker gets its block. Real workers are killed (-9), stopped (SIGSTOP) or cut
off (by a proxy that passes no byte), on loopback, over ipc and tcp in turn.

  ./dev chaos deaths --kills 1000 --stops 200 --cuts 50
  ./dev chaos deaths --kills 50 --stops 0 --cuts 0 --json

There are two blocks, four workers and no evaluations, so some workers are always idle. Times are those of the coordinator's log (clock_ns) minus this
program's; both use CLOCK_MONOTONIC."""

import argparse
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import chaos
from proxy import Proxy

JOB = """name: deaths
seed: 3
data: {source: synthetic-digits, samples: 4000}
model: [{linear: {units: 512}}, relu, dropout, {linear: {units: 256}}, relu, {linear: {units: 10}}]
train: {steps: 100000000, batch: 256, shards: 2}
optimizer: {sgd: {rate: 0.01}}
evaluate: {every: 1000000}
checkpoint: {every: 1000000}
"""
WORKERS = 4
PATIENCE = 30  # seconds to wait for any event
NOTICED = re.compile(r"worker (\S+)(?:: connection lost| was silent for too long and was removed)")
LEFT = re.compile(r"worker (\S+) (?:disconnected|was silent for too long and was removed)(; its leases return to the queue)?")
LEASED = re.compile(r"job 1: step (\d+), shards (\d+) \+ (\d+), attempt (\d+): leased to (\S+)")
JOINED = re.compile(r"worker (\S+) joined")


class Log:
    """Follows the coordinator's log: (clock_ns, text) of each line, and which worker holds which block."""

    def __init__(self, path):
        self.file = open(path, encoding="utf-8")
        self.lines, self.rest = [], ""
        self.joined, self.holders = set(), {}

    def read(self):
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        for line in lines:
            row = json.loads(line)
            self.lines.append((row["clock_ns"], row["text"]))
            if found := JOINED.match(row["text"]):
                self.joined.add(found[1])
            if found := NOTICED.match(row["text"]):
                self.joined.discard(found[1])
            if found := LEASED.match(row["text"]):
                self.holders[int(found[2])] = (found[5], int(found[1]))

    def wait(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.read()
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise chaos.Broken(f"{what}: not within {PATIENCE} s")
            time.sleep(0.002)

    def find(self, start, pattern, good=lambda found: True):
        """Finds the first matching line from `start` on; returns its index, time and match, or None."""
        for at in range(start, len(self.lines)):
            found = pattern.match(self.lines[at][1])
            if found and good(found):
                return at, self.lines[at][0], found
        return None


class Deaths(chaos.Run):
    def __init__(self, programs, folder, seed):
        self.programs, self.folder = programs, folder
        self.random = random.Random(seed)
        self.alive, self.frozen, self.workers = [], {}, {}
        self.count = 0
        (folder / "job.yaml").write_text(JOB)

    def start(self):
        port = chaos.free_port()
        self.urls = [f"ipc://{self.folder}/socket", f"tcp://127.0.0.1:{port}"]
        self.coordinator = self.spawn(
            "coordinator.log", self.programs / "coppice-coordinator", "--state", "state", "--log-json",
            *(word for url in self.urls for word in ("--listen", url)), COPPICE_LOG="debug",
        )
        self.log = Log(self.folder / "coordinator.log")
        self.log.wait("the coordinator's start", lambda: self.log.find(0, re.compile("ready:")))
        self.environment = {"COPPICE_TOKEN": (self.folder / "state/token").read_text().strip(), "COPPICE_COORDINATOR": self.urls[0]}
        self.proxy = Proxy(port)
        self.client("submit", "job.yaml", "--no-wait")
        self.fill()

    def client(self, *arguments):
        done = subprocess.run(
            [self.programs / "coppice", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **self.environment},
        )
        if done.returncode != 0:
            raise chaos.Broken(f"coppice {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def join(self, url=None):
        self.count += 1
        name = f"w{self.count}"
        url = url or self.urls[self.count % 2]
        self.workers[name] = self.spawn(
            "workers.log", self.programs / "coppice-worker", "--name", name, "--threads", "1", "--join", url,
            **self.environment, COPPICE_LOG="error",
        )
        return name

    def fill(self):
        """Starts missing workers, and waits until all have joined."""
        while len(self.workers) < WORKERS:
            self.join()
        self.log.wait("workers", lambda: self.log.joined >= self.workers.keys())

    def victim(self):
        """Waits for a random time; returns a worker that holds a block."""
        time.sleep(self.random.uniform(0.02, 0.15))
        live = lambda: [name for name, _ in self.log.holders.values() if name in self.workers]  # noqa: E731
        return self.random.choice(self.log.wait("a lease", live))

    def strike(self, name, deed):
        """Kills, stops or cuts off a worker. Returns milliseconds until this was noticed, and from then until its block was leased again (None if it held no block)."""
        self.log.read()
        start = len(self.log.lines)
        began = time.monotonic_ns()
        deed(self.workers[name])
        at, noticed, _ = self.log.wait(f"{name} is noticed", lambda: self.log.find(start, NOTICED, lambda m: m[1] == name))
        _, _, left = self.log.wait(f"{name} has left", lambda: self.log.find(at, LEFT, lambda m: m[1] == name))
        again = None
        if left[2]:
            _, leased, _ = self.log.wait("its block", lambda: self.log.find(at, LEASED, lambda m: int(m[4]) > 1))
            again = (leased - noticed) / 1e6
        return (noticed - began) / 1e6, again

    def kill(self):
        name = self.victim()
        figures = self.strike(name, lambda process: process.kill())
        self.end(self.workers.pop(name))
        self.fill()
        return figures

    def stop(self):
        name = self.victim()
        figures = self.strike(name, lambda process: self.freeze(process, math.inf))
        self.end(self.workers.pop(name))
        self.fill()
        return figures

    def cut(self):
        """Starts a worker behind the proxy, and cuts it off; it reconnects when bytes pass again."""
        name = self.join(f"tcp://127.0.0.1:{self.proxy.port}")
        self.log.wait(f"{name} joins", lambda: name in self.log.joined)
        time.sleep(self.random.uniform(0.02, 0.5))
        figures = self.strike(name, lambda process: self.proxy.stall())
        self.proxy.heal()
        self.log.wait(f"{name} comes back", lambda: name in self.log.joined)
        self.end(self.workers.pop(name))
        self.log.wait(f"{name} goes", lambda: name not in self.log.joined)
        return figures

    def step(self):
        return self.client("status", "1", "--json")["step"]

    def finish(self):
        """Checks that the job still progresses, and stops the coordinator."""
        before = self.step()
        self.log.wait("steps", lambda: self.step() > before)
        self.end(self.coordinator, 15)
        if self.coordinator.returncode != 0:
            raise chaos.Broken(f"the coordinator ended with {self.coordinator.returncode}")


def summary(values):
    values = sorted(values)
    at = lambda share: round(values[min(len(values) - 1, math.ceil(share * len(values)) - 1)], 2)  # noqa: E731
    return {"count": len(values), "p50": at(0.5), "p99": at(0.99), "most": round(values[-1], 2)} if values else {"count": 0}


def run(programs, folder, seed, counts, report_progress=lambda text: None):
    """counts: {"kill": N, "stop": N, "cut": N}. Returns all times in ms, {"kill": {"noticed": [..], "leased again": [..]}, ..}. Raises chaos.Broken."""
    deaths = Deaths(programs, folder, seed)
    times = {}
    try:
        deaths.start()
        for deed, count in counts.items():
            noticed, again = [], []
            for i in range(count):
                report_progress(f"{deed} {i + 1} of {count}")
                figures = getattr(deaths, deed)()
                noticed.append(figures[0])
                again += [figures[1]] if figures[1] is not None else []
            times[deed] = {"noticed": noticed, "leased again": again}
        deaths.finish()
    finally:
        deaths.close()
    return times


def histogram(values):
    """Lines of a histogram with bins that double in width."""
    edges = [0.0625 * 2**i for i in range(18)]
    bins = [0] * (len(edges) + 1)
    for value in values:
        bins[sum(value > edge for edge in edges)] += 1
    used = [i for i, n in enumerate(bins) if n]
    for i in range(used[0], used[-1] + 1) if used else []:
        yield f"  {edges[i] if i < len(edges) else math.inf:9.4g} ms  {bins[i]:5}  {'#' * math.ceil(60 * bins[i] / max(bins))}"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--stops", type=int, default=200)
    options.add_argument("--cuts", type=int, default=50)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json", action="store_true", help="print one line of JSON instead of histograms")
    o = options.parse_args()
    bar = sys.stderr.isatty()
    report_progress = lambda text: print(f"\r{text}   ", end="", file=sys.stderr) if bar else None  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="deaths-") as top:
        try:
            times = run(chaos.find_programs(), pathlib.Path(top), o.seed, {"kill": o.kills, "stop": o.stops, "cut": o.cuts}, report_progress)
        except chaos.Broken as broken:
            sys.exit(f"deaths: FAILED: {broken}")
    if bar:
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    if o.json:
        print(json.dumps({deed: {what: summary(values) for what, values in row.items()} for deed, row in times.items()}))
        return
    for deed, row in times.items():
        for what, values in row.items():
            figures = summary(values)
            print(f"{deed}, {what}: " + ", ".join(f"{key} {value}" for key, value in figures.items()) + (" ms" if values else ""))
            print("\n".join(histogram(values)))


if __name__ == "__main__":
    main()
