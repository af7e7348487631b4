#!/usr/bin/env python3
"""Times one training step of a convolutional network for MNIST: 32 and 64 filters of 5 x 5, 1024 hidden units with dropout, batch 128, f32.
Two workers in one process alternate with PyTorch on two threads, if --torch names a Python that has it. Prints JSON lines with medians over
the repeats.

usage: bench/conv.py [--data DIR] [--repeat N] [--torch PYTHON]   (finds the program by COPPICE_BIN or PATH)
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile

JOB = pathlib.Path(__file__).resolve().parent.parent / "examples/bench-conv.yaml"

# Run by the Python that --torch names.
TORCH = """
import json, time, torch
from torch import nn
STEPS, WARM, BATCH = 60, 5, 128
torch.set_num_threads(2)
torch.manual_seed(1)
net = nn.Sequential(
    nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(3136, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
images = torch.randint(0, 256, (60000, 1, 28, 28), dtype=torch.uint8)
labels = torch.randint(0, 10, (60000,))
order = torch.randperm(60000)
times = []
for step in range(STEPS + WARM):
    began = time.perf_counter()
    rows = order[step * BATCH : (step + 1) * BATCH]
    x, y = images[rows].float() / 255, labels[rows]
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    times.append(time.perf_counter() - began)
print(json.dumps({"ms_per_step": sum(times[WARM:]) / STEPS * 1e3, "version": torch.__version__}))
"""


def coppice(data):
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN")) or shutil.which("coppice")
    assert program, "no coppice: set COPPICE_BIN"
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([program, "run", JOB, "--workers", "2", "--data", data, "--out", out, "--json", "--quiet"],
                              capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {name: result[name] for name in ("ms_per_step", "digest", "isa", "peak_rss")}


def torch(python):
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")}
    done = subprocess.run([python, "-c", TORCH], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("COPPICE_MNIST"), help="folder with the files of MNIST (default: COPPICE_MNIST)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--torch")
    o = parser.parse_args()
    if not o.data:
        parser.error("MNIST not found: give its folder with --data DIR or in COPPICE_MNIST")
    subjects = {"coppice": lambda: coppice(o.data)}
    if o.torch:
        subjects["torch"] = lambda: torch(o.torch)
    results = {name: [] for name in subjects}
    for _ in range(o.repeat):  # alternate, so that drift of the machine affects all of them
        for name, subject in subjects.items():
            results[name].append(subject())
    for name, figures in results.items():
        times = [f["ms_per_step"] for f in figures]
        print(json.dumps({"what": name, **figures[-1], "ms_per_step": round(statistics.median(times), 2), "min": round(min(times), 2),
                          "max": round(max(times), 2)}), flush=True)
    if o.torch:
        median = {name: statistics.median(f["ms_per_step"] for f in figures) for name, figures in results.items()}
        print(json.dumps({"coppice / torch": round(median["coppice"] / median["torch"], 2)}))


if __name__ == "__main__":
    main()
