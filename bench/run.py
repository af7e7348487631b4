#!/usr/bin/env python3
"""Measures the speed figures of docs/measurements/speed.md: one training step of examples/bench.yaml, in one process and as a cluster. They
alternate with PyTorch, if --torch names a Python that has it. Prints JSON lines with medians over the repeats.

usage: bench/run.py [--data DIR] [--repeat N] [--torch PYTHON --peers DIR]   (finds the programs by COPPICE_BIN or PATH)
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOB = ROOT / "examples/bench.yaml"


def program(name):
    path = shutil.which(name, path=os.environ.get("COPPICE_BIN")) or shutil.which(name)
    assert path, f"no {name}: set COPPICE_BIN"
    return path


def in_process(data):
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([program("coppice"), "run", JOB, "--workers", "2", "--data", data, "--out", out, "--json", "--quiet"],
                              capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"ms_per_step": result["seconds"] * 1e3 / result["steps"], "first_step_ms": result["first_step_ms"],
            "peak_mb": round(result["peak_rss"] / 1e6), "digest": result["digest"]}


def peak_mb(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1e3)


def cluster(kind, data, *options):
    with tempfile.TemporaryDirectory() as folder:
        url = f"ipc://{folder}/socket" if kind == "ipc" else "tcp://127.0.0.1:29799"
        state = pathlib.Path(folder, "state")
        quiet = {"stderr": subprocess.DEVNULL}
        coordinator = subprocess.Popen([program("coppice-coordinator"), "--listen", url, "--state", state, "--data", data, *options], **quiet)
        while not (state / "data").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        env = {**os.environ, "COPPICE_TOKEN": (state / "token").read_text().strip(), "COPPICE_COORDINATOR": url}
        workers = [subprocess.Popen([program("coppice-worker")], env=env, **quiet) for _ in range(2)]
        time.sleep(0.5)
        done = subprocess.run([program("coppice"), "submit", JOB, "--json", "--quiet"], env=env, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        figures = {"ms_per_step": result["seconds"] * 1e3 / result["steps"], "digest": result["digest"],
                   "coordinator_peak_mb": peak_mb(coordinator), "worker_peak_mb": max(peak_mb(w) for w in workers)}
        for process in [*workers, coordinator]:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return figures


def torch(python, peers, *arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    done = subprocess.run([python, f"{peers}/torch_mlp.py", *arguments], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("COPPICE_MNIST"), help="folder with the files of MNIST (default: COPPICE_MNIST)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--torch")
    parser.add_argument("--peers", default=str(ROOT.parent / "shared/peers"))
    o = parser.parse_args()
    if not o.data:
        parser.error("MNIST not found: give its folder with --data DIR or in COPPICE_MNIST")
    subjects = {"run --workers 2": lambda: in_process(o.data), "cluster ipc": lambda: cluster("ipc", o.data),
                "cluster ipc, no shared memory": lambda: cluster("ipc", o.data, "--no-shm"), "cluster tcp": lambda: cluster("tcp", o.data, "--no-shm")}
    if o.torch:
        subjects["torch one process"] = lambda: torch(o.torch, o.peers, "--world", "1", "--threads", "2", "--fused")
        subjects["torch ddp"] = lambda: torch(o.torch, o.peers, "--world", "2", "--threads", "1", "--fused")
    results = {name: [] for name in subjects}
    for _ in range(o.repeat):  # alternate, so that drift of the machine affects all of them
        for name, subject in subjects.items():
            results[name].append(subject())
    for name, figures in results.items():
        times = [f["ms_per_step"] for f in figures]
        print(json.dumps({"what": name, "ms_per_step": round(statistics.median(times), 2), "min": round(min(times), 2), "max": round(max(times), 2),
                          **{k: v for k, v in figures[-1].items() if "peak" in k or k in ("first_step_ms", "digest", "version")}}), flush=True)
    median = {name: statistics.median(f["ms_per_step"] for f in figures) for name, figures in results.items()}
    if o.torch:
        pairs = [("run --workers 2", "torch one process"), ("cluster ipc", "torch ddp"), ("cluster tcp", "torch ddp")]
        print(json.dumps({"ratios": {f"{a} / {b}": round(median[a] / median[b], 2) for a, b in pairs}}))


if __name__ == "__main__":
    main()
