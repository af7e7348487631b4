#!/usr/bin/env python3
"""One training step of bench/step.py's networks in PyTorch: one process with two threads, or (--world 2) DistributedDataParallel over gloo
with one thread a process. Prints a JSON line with the median time over the repeats.

usage: torch_mlp.py [--world N] [--batch N] [--hidden 1024,1024,1024] [--bf16] [--steps N] [--repeat N]
"""
import argparse
import json
import os
import socket
import statistics
import time

import torch
from torch import nn


def network(sizes):
    layers = [nn.Dropout(0.2)]
    for a, b in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def work(rank, o):
    torch.set_num_threads(2 // o.world)
    torch.manual_seed(rank)
    model = network([784, *map(int, o.hidden.split(",")), 10])
    if o.world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(o.port), USE_LIBUV="0")
        torch.distributed.init_process_group("gloo", rank=rank, world_size=o.world)
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    x, labels = torch.rand(o.batch // o.world, 784), torch.randint(0, 10, (o.batch // o.world,))
    times = []
    for repeat in range(o.repeat + 1):  # the first one warms up
        began = time.perf_counter()
        for _ in range(o.steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=o.bf16):
                loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
        if repeat:
            times.append((time.perf_counter() - began) / o.steps)
    if rank == 0:
        print(json.dumps({"ms_per_step": statistics.median(times) * 1e3, "version": f"PyTorch {torch.__version__}"}), flush=True)
    if o.world > 1:
        torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=int, default=1, choices=(1, 2))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", default="1024,1024,1024")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    o = parser.parse_args()
    if o.world == 1:
        work(0, o)
        return
    with socket.socket() as probe:  # a free port
        probe.bind(("127.0.0.1", 0))
        o.port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(o,), nprocs=o.world)


if __name__ == "__main__":
    main()
