#!/usr/bin/env python3
"""Measures ensembles of thinned networks of 784-1024-1024-1024-10 (dropout .2/.5, 20 members, 10000 samples, f32, two threads) in
member-samples per second, with masks of scope sample and of scope shard. They alternate with PyTorch (`torch_ensemble.py`), if --torch names a
Python that has it. Prints JSON lines with medians over the repeats. The samples are random bytes, and PyTorch's are random numbers: neither has
more zeros than chance gives, so no side gains from skipping them.

usage: bench/ensemble.py [--repeat N] [--members K] [--samples N] [--torch PYTHON --peers DIR]   (finds the program by COPPICE_BIN or PATH)
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import tempfile

MEMBERS, SAMPLES = 20, 10000
JOB = """
name: bench-ensemble
seed: 1
data: {source: idx, train: {images: train-images, labels: train-labels}, test: {images: test-images, labels: test-labels}}
model:
  - dropout: {p: 0.2}
  - linear: {units: 1024}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 1024}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 1024}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: 1, batch: 128}
optimizer: {sgd: {rate: 0.01}}
evaluate: {every: 1000, on: test}
"""


def program():
    path = shutil.which("coppice", path=os.environ.get("COPPICE_BIN")) or shutil.which("coppice")
    assert path, "no coppice: set COPPICE_BIN"
    return path


def write_idx(path, dims, values):
    path.write_bytes(bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + values)


def write_data(folder, samples):
    numbers = random.Random(1)
    for part, count in (("train", 128), ("test", samples)):
        write_idx(folder / f"{part}-images", (count, 28, 28), numbers.randbytes(count * 784))
        write_idx(folder / f"{part}-labels", (count,), bytes(i % 10 for i in range(count)))


def train(folder, scope):
    (folder / "job.yaml").write_text(JOB)
    model = folder / scope
    subprocess.run([program(), "run", folder / "job.yaml", "--set", f"dropout.scope={scope}", "--data", folder, "--out", model, "--quiet"],
                   capture_output=True, check=True)
    return model


def evaluate(folder, model, members):
    done = subprocess.run([program(), "eval", model, "--data", folder, "--ensemble", str(members), "--workers", "2", "--json", "--quiet"],
                          capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"member_samples_per_s": members * result["samples"] / result["seconds"], "seconds": round(result["seconds"], 3),
            "nll": result["members"][0]["nll"]}


def torch(o):
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    done = subprocess.run([o.torch, f"{o.peers}/torch_ensemble.py", "--members", str(o.members), "--samples", str(o.samples), "--threads", "2",
                           "--repeat", "1"], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--torch")
    parser.add_argument("--peers", default=str(pathlib.Path(__file__).resolve().parent / "peers"))
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_data(folder, o.samples)
        models = {scope: train(folder, scope) for scope in ("sample", "shard")}
        subjects = {"sample": lambda: evaluate(folder, models["sample"], o.members), "shard": lambda: evaluate(folder, models["shard"], o.members)}
        if o.torch:
            subjects["torch"] = lambda: torch(o)
        results = {subject: [] for subject in subjects}
        for _ in range(o.repeat):  # alternate, so that drift of the machine affects all of them
            for subject, run in subjects.items():
                results[subject].append(run())
    median = {subject: statistics.median(f["member_samples_per_s"] for f in figures) for subject, figures in results.items()}
    for subject, figures in results.items():
        speeds = [f["member_samples_per_s"] for f in figures]
        print(json.dumps({"what": subject, **figures[-1], "member_samples_per_s": round(median[subject]), "min": round(min(speeds)),
                          "max": round(max(speeds))}), flush=True)
    if o.torch:
        print(json.dumps({f"{subject} / torch, member-samples per second": round(median[subject] / median["torch"], 2) for subject in ("sample", "shard")}))


if __name__ == "__main__":
    main()
