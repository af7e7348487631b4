#!/usr/bin/env python3
"""Compares the time of a training step with JAX and PyTorch, or with an older commit. All subjects run in turn, so that drift of the machine
affects all of them. Prints a table of medians and ratios, or JSON with more figures (digest, memory). A subject that fails ends only its rows.
In the rows of ensembles, a step is an evaluation of 10,000 samples by 20 members; in those of dropconnect, a pass of one layer.

usage: bench/step.py [--peers PYTHON] [--rows NAME,...] [--repeat N] [--json] [--write FILE]
       bench/step.py --against COMMIT [--rows NAME,...]

  --peers PYTHON    a Python with jax and torch; without it, rows that need them are listed as not run
  --rows NAME,...   only these rows (default: all)
  --repeat N        times that each subject runs (default 5)
  --against COMMIT  builds this commit in .cache/against and compares each of Coppice's subjects with it
  --write FILE      replaces the table between the two marks in FILE; rows that were not run keep their line

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

# name: (hidden layers, batch, shards, scope, p of the input, p of the hidden layers, steps, more fields of `train`)
WORKS = {
    "sample": ("1024,1024,1024", 128, 8, "sample", 0.2, 0.5, 300),
    "shard": ("1024,1024,1024", 128, 8, "shard", 0.2, 0.5, 300),
    "no dropout": ("1024,1024,1024", 128, 8, "sample", 0, 0, 200),
    "batch 1024": ("1024,1024,1024", 1024, 8, "sample", 0.2, 0.5, 40),
    "wide": ("4096,4096", 128, 8, "sample", 0.2, 0.5, 30),
    "tiny": ("64,64", 16, 2, "sample", 0.2, 0.5, 8000),
    "shard, bf16": ("1024,1024,1024", 128, 2, "shard", 0.2, 0.5, 200, "wire: bf16"),
}
# name: (how it runs, work, environment). "run" is `coppice run --workers 2`; "ipc" and "tcp" are a coordinator and two workers,
# which share memory with "ipc" and send all tensors over the connection with "wire" and "tcp". "eval" is an ensemble with masks of this
# scope. "layer" is one layer, dropconnect with this p or the linear layer of its size.
COPPICE = {
    "run": ("run", "sample", {}),
    "run, scope shard": ("run", "shard", {}),
    "run, no dropout": ("run", "no dropout", {}),
    "run, batch 1024": ("run", "batch 1024", {}),
    "run, wide": ("run", "wide", {}),
    "run, tiny": ("run", "tiny", {}),
    "run, AVX2": ("run", "sample", {"COPPICE_ISA": "avx2"}),
    "ipc": ("ipc", "sample", {}),
    "ipc, no shared memory": ("wire", "sample", {}),
    "tcp": ("tcp", "sample", {}),
    "tcp, scope shard, bf16": ("tcp", "shard, bf16", {}),
    "ensemble, scope sample": ("eval", "sample", {}),
    "ensemble, scope shard": ("eval", "shard", {}),
    "dropconnect .5": ("layer", "0.5", {}),
    "dropconnect .2": ("layer", "0.2", {}),
    "linear": ("layer", "linear", {}),
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
    "PyTorch DDP, bf16": ("torch_mlp.py", "--world 2 --steps 50 --bf16", {}),
    "PyTorch, ensemble": ("torch_ensemble.py", "--repeat 1", {}),
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
    ("shared-memory", "ipc", "ipc, no shared memory", 0.60),
    ("tcp-bf16", "tcp, scope shard, bf16", "PyTorch DDP, bf16", 0.30),
    ("ensemble", "ensemble, scope sample", "PyTorch, ensemble", 0.17),
    ("ensemble-shard", "ensemble, scope shard", "PyTorch, ensemble", 0.083),
    ("dropconnect-5", "dropconnect .5", "linear", 2.5),
    ("dropconnect-2", "dropconnect .2", "linear", 4.0),
]


def job(work):
    hidden, batch, shards, scope, first, rest, steps, *more = WORKS[work]
    mask = "  - dropout: {{p: {}, scope: {}}}\n".format
    layers = mask(first, scope)
    for units in hidden.split(","):
        layers += f"  - linear: {{units: {units}}}\n  - relu\n" + mask(rest, scope)
    return (f"name: step\nseed: 1\ndata: {{source: mnist}}\nmodel:\n{layers}  - linear: {{units: 10}}\n"
            f"train: {{{', '.join([f'steps: {steps}, batch: {batch}, shards: {shards}', *more])}}}\noptimizer: {{sgd: {{rate: 0.01, momentum: 0.9}}}}\n"
            "evaluate: {every: 1000000, on: test}\ncheckpoint: {every: 1000000}\n")


# ---- one subject, where Coppice's programs are on PATH ----

def output_of(command, **options):
    """Runs a command; returns the last line of its output, which is JSON. Fails with the last line of its errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{pathlib.Path(command[0]).name}: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def figures_of(result, **more):
    return {"ms_per_step": result["seconds"] * 1e3 / result["steps"], "digest": result["digest"], **more}


def run_in_process(path):
    result = output_of(["coppice", "run", path, "--workers", "2", "--out", path.parent / "out", "--json", "--quiet"])
    return figures_of(result, first_step_ms=result["first_step_ms"], peak_mb=round(result["peak_rss"] / 1e6))


def peak_mb(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1e3)
    return None


def run_on_pool(path, kind):
    url = "tcp://127.0.0.1:29798" if kind == "tcp" else f"ipc://{path.parent}/socket"
    state, quiet = path.parent / "state", {"stderr": subprocess.DEVNULL}
    knows = "--no-shm" in subprocess.run(["coppice-coordinator", "--help"], capture_output=True, text=True, check=True).stdout  # an old commit may not
    options = ["--no-shm"] if kind != "ipc" and knows else []
    processes = [subprocess.Popen(["coppice-coordinator", "--listen", url, "--state", state, "--data", os.environ["COPPICE_MNIST"], *options], **quiet)]
    try:
        while not (state / "token").exists():
            time.sleep(0.05)
            assert processes[0].poll() is None, "the coordinator ended"
        env = {**os.environ, "COPPICE_TOKEN": (state / "token").read_text().strip(), "COPPICE_COORDINATOR": url}
        processes += [subprocess.Popen(["coppice-worker", "--threads", "1"], env=env, **quiet) for _ in range(2)]
        time.sleep(0.5)
        result = output_of(["coppice", "submit", path, "--json", "--quiet"], env=env)
        coordinator, *workers = map(peak_mb, processes)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait()
    return figures_of(result, coordinator_peak_mb=coordinator, worker_peak_mb=max(workers))


def run_ensemble(folder, scope):
    import ensemble  # beside this script

    ensemble.write_data(folder, ensemble.SAMPLES)
    result = ensemble.evaluate(folder, ensemble.train(folder, scope), ensemble.MEMBERS)
    return {"ms_per_step": result["seconds"] * 1e3}


def run_layer(p):
    if not shutil.which("bench-dropconnect"):
        sys.exit("no bench-dropconnect: run ./dev build")
    result = output_of(["bench-dropconnect", "--p", "0.5" if p == "linear" else p])
    return {"ms_per_step": result["linear_ms" if p == "linear" else "dropconnect_ms"]}


def run_one(how, work):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if how == "layer":
            result = run_layer(work)
        elif how == "eval":
            result = run_ensemble(folder, work)
        else:
            (folder / "step.yaml").write_text(job(work))
            result = run_in_process(folder / "step.yaml") if how == "run" else run_on_pool(folder / "step.yaml", how)
    print(json.dumps(result))


# ---- all subjects ----

def outcome(command, env):
    """Runs a command that prints a subject's figures; returns them, or {"failed": why}."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def measure_coppice(name, dev):
    how, work, env = COPPICE[name]
    # Inside ./dev the programs are on PATH; elsewhere ./dev runs the same script inside.
    prefix = [] if not dev and shutil.which("coppice") else [(dev or ROOT) / "dev", "exec", "env"]
    script = dev / ".cache/step.py" if dev else ROOT / "bench/step.py"
    words = [f"{k}={v}" for k, v in env.items()] if prefix else []
    return outcome([*prefix, *words, "python3", script, "--one", how, work], env)


def measure_peer(name, python):
    program, arguments, env = PEERS[name]
    if not shutil.which(python):
        return {"failed": f"no Python at {python}"}
    return outcome([python, ROOT / "bench/peers" / program, *arguments.split()], env)


def build(commit):
    name = subprocess.run(["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    folder = ROOT / ".cache/against" / name
    if not folder.exists():
        subprocess.run(["git", "worktree", "add", "--detach", folder, name], cwd=ROOT, check=True, stdout=sys.stderr)
    (folder / ".cache").mkdir(exist_ok=True)
    for name in ("step.py", "ensemble.py"):
        shutil.copy(ROOT / "bench" / name, folder / ".cache" / name)
    subprocess.run([folder / "dev", "build", "programs"], check=True, stdout=sys.stderr)
    return folder


def measure_all(subjects, repeat):
    """subjects: {name: function}; returns {name: list of results}. A subject that failed is not run again."""
    results = {name: [] for name in subjects}
    for turn in range(repeat):
        for name, measure in subjects.items():
            if results[name] and "failed" in results[name][-1]:
                continue
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
            **{k: v for k, v in figures[-1].items() if k != "ms_per_step"}}
    return out


def rows_of(figures, rows):
    out = []
    for name, subject, other, target in rows:
        row = {"row": name, "subject": subject, "beside": other, "target": target}
        missing = [s for s in (subject, other) if "ms_per_step" not in figures.get(s, {})]
        failed = [f"{s}: {figures[s]['failed']}" for s in missing if s in figures]
        if failed:
            row["failed"] = failed[0]
        elif missing:
            row["not_run"] = f"{missing[0]} needs --peers"
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
        reasons = [f"{kind.replace('_', ' ')}: {row[kind]}".replace("|", "/") for kind in ("failed", "not_run") if kind in row]
        verdict = reasons[0] if reasons else "met" if row["met"] else "not met"
        lines.append(f"| {row['row']} | {row['subject']}: {cell(figures.get(row['subject'], {}))} "
                     f"| {row['beside']}: {cell(figures.get(row['beside'], {}))} | {ratio} | {row['target']:.2f} | {verdict} |")
    return "\n".join(lines)


def lines_by_row(text):
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


def write(path, figures, rows):
    """Replaces the table in a file. Rows that were not run keep their line, with the figures of an earlier session."""
    old = path.read_text()
    begin, end = (old.index(mark) for mark in MARKS)
    new, ran = table(figures, rows), {row["row"] for row in rows if "not_run" not in row}
    earlier, now = lines_by_row(old[begin:end]), lines_by_row(new)
    lines = new.splitlines()[:2]
    for name, *_ in ROWS:
        line = now.get(name) if name in ran else earlier.get(name, now.get(name))
        lines += [line] if line else []
    text = "\n".join(lines)
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
    if o.write and o.against:
        parser.error("--write is for the table with peers, not for --against")
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
        write(o.write, figures, result)


if __name__ == "__main__":
    main()
