#!/usr/bin/env python3
"""Feeds random bytes to every parser that reads untrusted input: runs libFuzzer on each tests/fuzz/fuzz_<target>.c.

  ./dev fuzz                          run every target for 20 seconds
  ./dev fuzz call session --hours 8   run these two for longer
  ./dev fuzz --plain --runs 10000000  run without sanitizers: much faster, and limited to 64 MiB of memory
  ./dev fuzz png --input FILE         replay one input, with the report of the sanitizers
  ./dev fuzz png --merge              add inputs from the cache that reach new code to tests/fuzz/corpus/png

A crash is a memory error, undefined behaviour, a leak, a failed check of the target, an allocation over 64 MiB (--plain: over 64 MiB
of resident memory in all), or an input that takes over a second in each of three repetitions. Its input is kept, and the command that
replays it is printed. After fixing the bug, add the input to tests/fuzz/corpus/<target>; every build replays these files. Inputs that
reached new code are kept in the user's cache, and the next run starts with them."""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MEMORY_MB = 64
SLOW_S = 1
AT_END = ("call", "session", "state")  # these keep threads and memory between inputs, so leaks are checked only at the end
MERGE_BYTES = 1024  # larger inputs are not added to the repository
MERGE_MOST = 24

Result = collections.namedtuple("Result", "target executions seconds peak_mb slowest_s crashes")


def targets():
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))


class Runner:
    """Runs targets that are already built. Corpora and crashes are kept in `cache`."""

    def __init__(self, programs, cache, plain, options):
        self.programs, self.cache, self.plain, self.options = programs, cache, plain, options
        self.running, self.lock, self.ended = set(), threading.Lock(), False

    def limits(self):
        if self.plain:
            return [f"-rss_limit_mb={MEMORY_MB}"]
        return ["-rss_limit_mb=1024", f"-malloc_limit_mb={MEMORY_MB}"]

    def run(self, target, *arguments):
        """Runs a target; returns its exit status, its output, and its CPU time in seconds."""
        environment = {
            **os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", "OPENBLAS_NUM_THREADS": "1",
            "ASAN_OPTIONS": "detect_stack_use_after_return=1",
        }
        with tempfile.TemporaryDirectory(prefix="coppice-fuzz-") as folder:
            process = subprocess.Popen(
                [self.programs / f"fuzz_{target}", *map(str, arguments)], cwd=ROOT, text=True, errors="replace",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**environment, "TMPDIR": folder},
            )
            with self.lock:
                self.running.add(process)
                if self.ended:
                    process.kill()
            output = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            with self.lock:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.running.discard(process)
        return process.returncode, output, used.ru_utime + used.ru_stime

    def close(self):
        with self.lock:
            self.ended = True
            for process in self.running:
                process.kill()

    def is_slow(self, target, path):
        """Returns whether an input hangs, or takes over a second of CPU time: elapsed time depends on other load."""
        status, output, computed = self.run(target, *self.limits(), "-timeout=60", path)
        return status != 0 or "Executed " not in output or computed >= SLOW_S + self.start_s(target)

    def start_s(self, target):
        """Returns the CPU time that the target takes for an empty input."""
        with tempfile.NamedTemporaryFile() as empty:
            return self.run(target, *self.limits(), "-timeout=60", empty.name)[2]

    def hunt(self, target):
        """Runs a target until its time or its number of executions is reached, or until it crashes."""
        corpus, crashes = self.cache / "corpus" / target, self.cache / "crashes" / target
        for folder in (corpus, crashes):
            folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        executions = peak = slowest = 0
        while True:
            left = self.left(executions, began)
            if not left:
                return Result(target, executions, time.monotonic() - began, peak, slowest, [])
            status, output, _ = self.run(
                target, *self.limits(), f"-timeout={SLOW_S}", f"-detect_leaks={int(target not in AT_END)}", f"-artifact_prefix={crashes}/", "-print_final_stats=1",
                "-verbosity=0", *left, corpus, *[seeds for seeds in [HERE / "corpus" / target] if seeds.is_dir()],
            )
            figures = {name: int(value) for name, value in re.findall(r"stat::(\w+):\s+(\d+)", output)}
            executions += figures.get("number_of_executed_units", 0)
            peak = max(peak, figures.get("peak_rss_mb", 0))
            slowest = max(slowest, figures.get("slowest_unit_time_sec", 0))
            written = re.search(r"Test unit written to (\S+)", output)
            if status == 0 or self.ended:
                continue
            if written and "/timeout-" in written[1] and not self.is_slow(target, written[1]):
                os.remove(written[1])
                continue
            where = written[1] if written else "no input was kept"
            return Result(target, executions, time.monotonic() - began, peak, slowest, [{"input": where, "report": output[-6000:]}])

    def left(self, executions, began):
        """libFuzzer's options for the remaining time or executions; empty if nothing remains."""
        if self.ended:
            return []
        if self.options.runs:
            left = self.options.runs - executions
            return [f"-runs={left}"] if left > 0 else []
        left = round(self.options.seconds - (time.monotonic() - began))
        return [f"-max_total_time={left}"] if left >= 1 else []

    def merge(self, target):
        """Adds the shortest inputs that reach new code to the repository, a few at a time."""
        kept = HERE / "corpus" / target
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="coppice-merge-") as folder:
            small = pathlib.Path(folder, "small")
            small.mkdir()
            for path in (self.cache / "corpus" / target).glob("*"):
                if path.stat().st_size <= MERGE_BYTES:
                    shutil.copy(path, small)
            before = {path.name for path in kept.iterdir()}
            self.run(target, "-merge=1", "-timeout=10", kept, small)
            new = sorted((path for path in kept.iterdir() if path.name not in before), key=lambda path: path.stat().st_size)
            for path in new[max(0, MERGE_MOST - len(before)):]:
                path.unlink()
            for path in new[: max(0, MERGE_MOST - len(before))]:
                path.rename(kept / path.name[:12])
        print(f"{target}: {len(list(kept.iterdir()))} inputs, {sum(p.stat().st_size for p in kept.iterdir())} bytes")


def print_row(result):
    print(f"{result.target:<12} {result.executions:>12,} {result.executions / max(result.seconds, 1e-9):>10,.0f}"
          f" {result.peak_mb:>8} {result.slowest_s:>9} {len(result.crashes):>8}", flush=True)


def print_crash(result, options):
    for crash in result.crashes:
        print(f"\n{crash['report']}\nfuzz: {result.target} is broken by {crash['input']}; again:\n"
              f"  ./dev fuzz {result.target}{' --plain' if options.plain else ''} --input {crash['input']}", flush=True)


class Bar:
    """A progress bar for the whole run, on a terminal."""

    def __init__(self, count, options):
        self.count, self.done, self.options, self.began = count, 0, options, time.monotonic()
        self.shown = sys.stderr.isatty() and not options.json
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        if self.shown:
            self.thread.start()

    def run(self):
        while not self.end.wait(1):
            gone = time.monotonic() - self.began
            part = self.done / self.count
            if not self.options.runs:
                part = min(1, gone / (self.options.seconds * -(-self.count // self.options.jobs)))
            print(f"\rfuzz: [{'#' * round(30 * part):<30}] {self.done} of {self.count} targets, {gone:.0f} s ", end="", file=sys.stderr)

    def clear(self):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def close(self):
        self.end.set()
        self.clear()


def run_all(runner, names, options):
    """Runs all targets; returns the results in order of completion."""
    results, bar = [], Bar(len(names), options)
    if not options.json:
        print(f"{'target':<12} {'executions':>12} {'per s':>10} {'peak MB':>8} {'longest s':>9} {'crashes':>8}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        under_way = [pool.submit(runner.hunt, name) for name in names]
        try:
            for done in concurrent.futures.as_completed(under_way):
                results.append(done.result())
                bar.done += 1
                bar.clear()
                if not options.json:
                    print_row(results[-1])
                    print_crash(results[-1], options)
        except KeyboardInterrupt:
            runner.close()
    bar.close()
    return results


def write_junit(path, results):
    suite = ElementTree.Element("testsuite", name="fuzz")
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", name=result.target, time=f"{result.seconds:.1f}")
        for crash in result.crashes:
            ElementTree.SubElement(case, "failure", message=crash["input"]).text = crash["report"]
        if not result.executions and not result.crashes:
            ElementTree.SubElement(case, "failure", message="no input was run")
    ElementTree.ElementTree(suite).write(path)


def read_options():
    options = argparse.ArgumentParser(prog="./dev fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all; there are {' '.join(targets())}")
    how_long = options.add_mutually_exclusive_group()
    how_long.add_argument("--seconds", type=float, default=20, help="time for each target (default: 20)")
    how_long.add_argument("--hours", type=float, help="time for each target")
    how_long.add_argument("--runs", type=int, help="number of executions of each target")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="number of targets to run in parallel (default: the number of cores)")
    options.add_argument("--plain", action="store_true", help="run without sanitizers")
    options.add_argument("--input", metavar="FILE", help="run only this input, on one target")
    options.add_argument("--merge", action="store_true", help="add new inputs to the corpus of the repository")
    options.add_argument("--cache", metavar="DIR", help="folder of corpora and crashes (default: the user's cache)")
    options.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    options.add_argument("--junit", metavar="FILE", help=argparse.SUPPRESS)
    options.add_argument("--programs", metavar="DIR", type=pathlib.Path, help=argparse.SUPPRESS)
    o = options.parse_args()
    unknown = [name for name in o.targets if name not in targets()]
    if unknown:
        options.error(f"unknown target \"{unknown[0]}\": expected one of {', '.join(targets())}")
    if o.input and (len(o.targets) != 1 or not os.path.isfile(o.input)):
        options.error("--input needs an existing file and exactly one target")
    if o.jobs < 1 or (o.runs is not None and o.runs < 1) or o.seconds < 1 or (o.hours is not None and o.hours <= 0):
        options.error("--seconds, --runs and --jobs must be at least 1, --hours above 0")
    if o.hours:
        o.seconds = o.hours * 3600
    return o


def main():
    o = read_options()
    cache = pathlib.Path(o.cache or pathlib.Path(os.environ.get("COPPICE_CACHE") or pathlib.Path.home() / ".cache/coppice", "fuzz"))
    programs = o.programs or ROOT / "build" / ("fuzz-plain" if o.plain else "fuzz") / "fuzz"
    runner = Runner(programs.resolve(), cache.resolve(), o.plain, o)
    names = o.targets or targets()
    if o.input:
        status, output, _ = runner.run(o.targets[0], *runner.limits(), "-timeout=60", pathlib.Path(o.input).resolve())
        print(output, end="")
        sys.exit(1 if status else 0)
    if o.merge:
        for name in names:
            runner.merge(name)
        return
    results = run_all(runner, names, o)
    executions, crashes = sum(r.executions for r in results), sum(len(r.crashes) for r in results)
    if o.junit:
        write_junit(o.junit, results)
    if o.json:
        print(json.dumps({"executions": executions, "crashes": crashes, "plain": o.plain, "targets": [r._asdict() for r in results]}))
    else:
        print(f"{executions:,} executions, {crashes} crashes; inputs are kept in {cache}")
    sys.exit(1 if crashes or len(results) < len(names) else 0)


if __name__ == "__main__":
    main()
