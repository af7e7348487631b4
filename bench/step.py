#!/usr/bin/env python3
"""Compares the time of a training step with JAX and PyTorch, or with an older commit. All subjects run in turn, so that drift of the machine
affects all of them. Prints a table of medians and ratios, or JSON.

usage: bench/step.py [--peers PYTHON] [--rows NAME,...] [--repeat N] [--json] [--write FILE]
       bench/step.py --against COMMIT [--rows NAME,...]

  --peers PYTHON    a Python with jax and torch; without it, rows that need them are listed as not run
  --rows NAME,...   only these rows (default: all)
  --repeat N        times that each subject runs (default 5)
  --against COMMIT  builds this commit in .cache/against and compares each of Coppice's subjects with it
  --write FILE      replaces the table between the two marks in FILE

Examples: ./dev bench step
          bench/step.py --peers ~/venv/bin/python --write docs/measurements/speed.md
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARKS = ("<!-- bench/step.py: begin -->", "<!-- bench/step.py: end -->")

# name: (hidden layers, batch, shards, scope, p of the input, p of the hidden layers, steps)
WORKS = {
    "sample": ("1024,1024,1024", 128, 8, "sample", 0.2, 0.5, 300),
    "shard": ("1024,1024,1024", 128, 8, "shard", 0.2, 0.5, 300),
    "no dropout": ("1024,1024,1024", 128, 8, "sample", 0, 0, 200),
    "batch 1024": ("1024,1024,1024", 1024, 8, "sample", 0.2, 0.5, 40),
    "wide": ("4096,4096", 128, 8, "sample", 0.2, 0.5, 30),
    "tiny": ("64,64", 16, 2, "sample", 0.2, 0.5, 8000),
}
# name: (how it runs, work, environment). "run" is `coppice run --workers 2`; "ipc" and "tcp" are a coordinator and two workers,
# which share memory with "ipc" and send all tensors over the connection with "tcp".
COPPICE = {
    "run": ("run", "sample", {}),
    "run, scope shard": ("run", "shard", {}),
    "run, no dropout": ("run", "no dropout", {}),
    "run, batch 1024": ("run", "batch 1024", {}),
    "run, wide": ("run", "wide", {}),
    "run, tiny": ("run", "tiny", {}),
    "run, AVX2": ("run", "sample", {"COPPICE_ISA": "avx2"}),
    "ipc": ("ipc", "sample", {}),
    "tcp": ("tcp", "sample", {}),
}
# name: (program, arguments, environment)
PEERS = {
    "JAX": ("jax_mlp.py", "--steps 50", {}),
    "JAX, batch 1024": ("jax_mlp.py", "--batch 1024 --steps 10", {}),
    "JAX, wide": ("jax_mlp.py", "--hidden 4096,4096 --steps 10", {}),
    "JAX, tiny": ("jax_mlp.py", "--hidden 64,64 --batch 16 --steps 2000", {}),
    "JAX, AVX2": ("jax_mlp.py", "--steps 50", {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"}),
    "PyTorch": ("torch_mlp.py", "--steps 50", {}),
    "PyTorch DDP": ("torch_mlp.py", "--world 2 --steps 50", {}),
}
# (row, subject, the subject that it is compared with, the largest ratio that we want)
ROWS = [
    ("jax", "run", "JAX", 0.50),
    ("torch", "run", "PyTorch", 0.33),
    ("dropout", "run", "run, no dropout", 0.75),
    ("shard", "run, scope shard", "JAX", 0.25),
    ("ipc-ddp", "ipc", "PyTorch DDP", 0.28),
    ("ipc-run", "ipc", "run", 1.15),
    ("tcp-ddp", "tcp", "PyTorch DDP", 0.60),
    ("batch-1024", "run, batch 1024", "JAX, batch 1024", 0.40),
    ("wide", "run, wide", "JAX, wide", 0.50),
    ("tiny", "run, tiny", "JAX, tiny", 0.25),
    ("avx2", "run, AVX2", "JAX, AVX2", 0.60),
]


def job(work):
    hidden, batch, shards, scope, first, rest, steps = WORKS[work]
    mask = "  - dropout: {{p: {}, scope: {}}}\n".format
    layers = mask(first, scope)
    for units in hidden.split(","):
        layers += f"  - linear: {{units: {units}}}\n  - relu\n" + mask(rest, scope)
    return (f"name: step\nseed: 1\ndata: {{source: mnist}}\nmodel:\n{layers}  - linear: {{units: 10}}\n"
            f"train: {{steps: {steps}, batch: {batch}, shards: {shards}}}\noptimizer: {{sgd: {{rate: 0.01, momentum: 0.9}}}}\n"
            "evaluate: {every: 1000000, on: test}\ncheckpoint: {every: 1000000}\n")


# ---- one subject, where Coppice's programs are on PATH ----

def run_in_process(path):
    command = ["coppice", "run", path, "--workers", "2", "--out", path.parent / "out", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_on_pool(path, kind):
    url = f"ipc://{path.parent}/socket" if kind == "ipc" else "tcp://127.0.0.1:29798"
    state, quiet = path.parent / "state", {"stderr": subprocess.DEVNULL}
    knows = "--no-shm" in subprocess.run(["coppice-coordinator", "--help"], capture_output=True, text=True, check=True).stdout  # an old commit may not
    options = ["--no-shm"] if kind == "tcp" and knows else []
    processes = [subprocess.Popen(["coppice-coordinator", "--listen", url, "--state", state, "--data", os.environ["COPPICE_MNIST"], *options], **quiet)]
    try:
        while not (state / "token").exists():
            time.sleep(0.05)
            assert processes[0].poll() is None, "the coordinator ended"
        env = {**os.environ, "COPPICE_TOKEN": (state / "token").read_text().strip(), "COPPICE_COORDINATOR": url}
        processes += [subprocess.Popen(["coppice-worker", "--threads", "1"], env=env, **quiet) for _ in range(2)]
        time.sleep(0.5)
        done = subprocess.run(["coppice", "submit", path, "--json", "--quiet"], env=env, capture_output=True, text=True, check=True)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait()
    return json.loads(done.stdout.splitlines()[-1])


def run_one(how, work):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "step.yaml")
        path.write_text(job(work))
        result = run_in_process(path) if how == "run" else run_on_pool(path, how)
    print(json.dumps({"ms_per_step": result["seconds"] * 1e3 / result["steps"], "digest": result["digest"]}))


# ---- all subjects ----

def measure_coppice(name, dev):
    how, work, env = COPPICE[name]
    # Inside ./dev the programs are on PATH; elsewhere ./dev runs the same script inside.
    prefix = [] if not dev and shutil.which("coppice") else [(dev or ROOT) / "dev", "exec", "env"]
    script = dev / ".cache/step.py" if dev else ROOT / "bench/step.py"
    words = [f"{k}={v}" for k, v in env.items()] if prefix else []
    command = [*prefix, *words, "python3", script, "--one", how, work]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if done.returncode:
        sys.exit(f"step.py: {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_peer(name, python):
    program, arguments, env = PEERS[name]
    command = [python, ROOT / "bench/peers" / program, *arguments.split()]
    if not shutil.which(python):
        return {"failed": f"no Python at {python}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output"}
    return json.loads(done.stdout.splitlines()[-1])


def build(commit):
    name = subprocess.run(["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    folder = ROOT / ".cache/against" / name
    if not folder.exists():
        subprocess.run(["git", "worktree", "add", "--detach", folder, name], cwd=ROOT, check=True, stdout=sys.stderr)
    (folder / ".cache").mkdir(exist_ok=True)
    shutil.copy(ROOT / "bench/step.py", folder / ".cache/step.py")
    subprocess.run([folder / "dev", "build", "programs"], check=True, stdout=sys.stderr)
    return folder


def measure_all(subjects, repeat):
    """subjects: {name: function}; returns {name: list of results}, without subjects that failed."""
    results = {name: [] for name in subjects}
    for turn in range(repeat):
        for name, measure in subjects.items():
            print(f"step.py: {turn + 1} of {repeat}: {name}", file=sys.stderr, flush=True)
            results[name].append(measure())
    return results


def summary(results):
    out = {}
    for name, figures in results.items():
        failed = [f["failed"] for f in figures if "failed" in f]
        times = [f["ms_per_step"] for f in figures if "failed" not in f]
        out[name] = {"failed": failed[0]} if failed else {
            "ms_per_step": statistics.median(times), "min": min(times), "max": max(times),
            **{k: figures[-1][k] for k in ("digest", "version") if k in figures[-1]}}
    return out


def rows_of(figures, rows):
    out = []
    for name, subject, other, target in rows:
        row = {"row": name, "subject": subject, "beside": other, "target": target}
        missing = [s for s in (subject, other) if "ms_per_step" not in figures.get(s, {})]
        if missing:
            row["not_run"] = figures.get(missing[0], {}).get("failed", f"{missing[0]} needs --peers")
        else:
            row["ratio"] = figures[subject]["ms_per_step"] / figures[other]["ms_per_step"]
            row["met"] = row["ratio"] <= target
        out.append(row)
    return out


def cell(figure):
    return f"{figure['ms_per_step']:.3g} ({figure['min']:.3g} to {figure['max']:.3g})" if "ms_per_step" in figure else "-"


def table(figures, rows):
    lines = ["| row | subject, ms per step | compared with, ms per step | ratio | wanted | |", "|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
        verdict = f"not run: {row['not_run']}" if "not_run" in row else "met" if row["met"] else "not met"
        lines.append(f"| {row['row']} | {row['subject']}: {cell(figures.get(row['subject'], {}))} "
                     f"| {row['beside']}: {cell(figures.get(row['beside'], {}))} | {ratio} | {row['target']:.2f} | {verdict} |")
    return "\n".join(lines)


def write(path, text):
    old = path.read_text()
    begin, end = (old.index(mark) for mark in MARKS)
    path.write_text(f"{old[:begin]}{MARKS[0]}\n{text}\n{old[end:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("--peers", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", default=",".join(row[0] for row in ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=5, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--against", help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # used by the script itself
    o = parser.parse_args()
    if o.one:
        run_one(*o.one)
        return
    unknown = set(o.rows.split(",")) - {row[0] for row in ROWS}
    if unknown or o.repeat < 1:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(row[0] for row in ROWS)}" if unknown else "--repeat must be at least 1")
    rows = [row for row in ROWS if row[0] in o.rows.split(",")]
    names = list(dict.fromkeys(name for row in rows for name in row[1:3]))
    subjects = {name: lambda name=name: measure_coppice(name, None) for name in names if name in COPPICE}
    if o.against:
        old = build(o.against)
        rows = [(name, name, f"{name} at {o.against}", 1.05) for name in subjects]
        subjects |= {f"{name} at {o.against}": lambda name=name: measure_coppice(name, old) for name in list(subjects)}
    elif o.peers:
        subjects |= {name: lambda name=name: measure_peer(name, o.peers) for name in names if name in PEERS}
    figures = summary(measure_all(subjects, o.repeat))
    result = rows_of(figures, rows)
    print(json.dumps({"subjects": figures, "rows": result}) if o.json else table(figures, result))
    if o.write:
        write(o.write, table(figures, result))


if __name__ == "__main__":
    main()
