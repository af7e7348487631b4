#!/usr/bin/env python3
"""Monte Carlo dropout of bench/ensemble.py's network in PyTorch, the usual way: the dropout modules stay in training mode, and all samples run
forward once for each member. Prints a JSON line with the median time of an evaluation over the repeats.

usage: torch_ensemble.py [--members K] [--samples N] [--threads T] [--repeat N]
"""
import argparse
import json
import statistics
import time

import torch
from torch_mlp import network


def evaluate(model, x, members):
    total = torch.zeros(len(x), 10)
    for _ in range(members):
        for part, sums in zip(x.split(1000), total.split(1000)):
            sums += model(part).softmax(1)
    return total / members


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--samples", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    model = network([784, 1024, 1024, 1024, 10]).train()
    x = torch.rand(o.samples, 784)
    times = []
    with torch.inference_mode():
        for repeat in range(o.repeat + 1):  # the first one warms up
            began = time.perf_counter()
            evaluate(model, x, o.members)
            if repeat:
                times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    print(json.dumps({"ms_per_step": seconds * 1e3, "member_samples_per_s": o.members * o.samples / seconds,
                      "version": f"PyTorch {torch.__version__}"}))


if __name__ == "__main__":
    main()
