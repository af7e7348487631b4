#!/usr/bin/env python3
"""Measures what 1000 peers that begin a TLS handshake and then fall silent cost a job: the ratio of steps per second with and without them,
in alternating rounds of one run. Prints one JSON line."""

import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS, SECONDS, PEERS = int(os.environ.get("ROUNDS", "10")), 2.0, 1000
JOB = """name: half-open
data: {source: synthetic-digits, samples: 4000}
model: [{linear: {units: 256}}, relu, dropout, {linear: {units: 10}}]
train: {steps: 100000000, batch: 64, shards: 4}
optimizer: {sgd: {rate: 0.01}}
"""


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    folder = pathlib.Path(tempfile.mkdtemp())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    url = f"tls+tcp://127.0.0.1:{address[1]}"
    environment = {**os.environ, "COPPICE_TLS_DIR": str(folder / "tls"), "COPPICE_COORDINATOR": url, "COPPICE_LOG": "error"}
    environment.pop("COPPICE_TOKEN", None)

    def client(*words):
        return subprocess.run(["coppice", *words], env=environment, check=True, capture_output=True, text=True).stdout

    subprocess.run(["coppice-coordinator", "--init-tls", folder / "tls"], check=True, capture_output=True)
    started = [subprocess.Popen(["coppice-coordinator", "--listen", url, "--state", folder / "state"], env=environment)]
    try:
        (folder / "job.yaml").write_text(JOB)
        started.append(subprocess.Popen(["coppice-worker", "--threads", "1"], env=environment))
        client("submit", str(folder / "job.yaml"), "--no-wait")

        def step():
            return json.loads(client("status", "1", "--json"))["step"]

        def speed():
            first, began = step(), time.monotonic()
            time.sleep(SECONDS)
            return (step() - first) / (time.monotonic() - began)

        while step() < 50:
            time.sleep(0.1)
        ratios, speeds = [], []
        for i in range(ROUNDS):
            alone = speed()
            peers = [socket.create_connection(address) for _ in range(PEERS)]
            for peer in peers[::2]:
                peer.sendall(b"\x16\x03\x01")
            ratios.append(speed() / alone)
            speeds.append(alone)
            for peer in peers:
                peer.close()
        print(json.dumps({"bench": "half_open", "peers": PEERS, "rounds": ROUNDS, "steps_per_s": round(statistics.median(speeds), 1),
                          "ratio": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}))
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
