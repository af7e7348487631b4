#!/usr/bin/env python3
"""Times one training step of 784-800-[dropconnect 800]-10 (one mask per weight and sample, batch 128, f32) with two workers in one process,
against the same network with a plain linear layer and, if --torch names a Python that has it, against PyTorch. Prints JSON lines with medians
over the repeats.

usage: bench/dropconnect.py [--data DIR] [--repeat N] [--torch PYTHON --peer FILE]   (finds the program by COPPICE_BIN or PATH)

FILE is a Python program that computes the step in PyTorch and prints a JSON line with samples_per_s. The program `bench-dropconnect` compares
the layer alone with a linear layer.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

JOB = pathlib.Path(__file__).resolve().parent.parent / "examples/bench-dropconnect.yaml"


def coppice(job, data):
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN")) or shutil.which("coppice")
    assert program, "no coppice: set COPPICE_BIN"
    with tempfile.TemporaryDirectory() as out:
        path = pathlib.Path(out) / "job.yaml"
        path.write_text(job)
        done = subprocess.run([program, "run", path, "--workers", "2", "--data", data, "--out", pathlib.Path(out) / "run", "--json", "--quiet"],
                              capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"samples_per_s": 128e3 / result["ms_per_step"], **{name: result[name] for name in ("ms_per_step", "digest", "isa")}}


def peer(python, script):
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    done = subprocess.run([python, script, "--threads", "2"], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("COPPICE_MNIST"), help="folder with the files of MNIST (default: COPPICE_MNIST)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--torch")
    parser.add_argument("--peer")
    o = parser.parse_args()
    if not o.data:
        parser.error("MNIST not found: give its folder with --data DIR or in COPPICE_MNIST")
    job = JOB.read_text()
    plain = job.replace("dropconnect: {units: 800, p: 0.5, init: torch, draws: 1}", "linear: {units: 800, init: torch}")
    assert plain != job
    subjects = {"dropconnect": lambda: coppice(job, o.data), "linear": lambda: coppice(plain, o.data)}
    if o.torch:
        subjects["torch"] = lambda: peer(o.torch, o.peer)
    results = {name: [] for name in subjects}
    for _ in range(o.repeat):  # alternate, so that drift of the machine affects all of them
        for name, subject in subjects.items():
            results[name].append(subject())
    median = {name: statistics.median(f["samples_per_s"] for f in figures) for name, figures in results.items()}
    for name, figures in results.items():
        print(json.dumps({"what": name, **figures[-1], "samples_per_s": round(median[name])}), flush=True)
    for other in list(subjects)[1:]:
        print(json.dumps({f"dropconnect / {other}, samples per second": round(median["dropconnect"] / median[other], 2)}))


if __name__ == "__main__":
    main()
