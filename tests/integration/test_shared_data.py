"""A coordinator reads a data set once, and keeps one copy of it in memory for all requests."""

import concurrent.futures
import os
import re
import subprocess

from integration_tools import write_idx

JOB = """
name: wide
data: {source: mnist}
model: [linear: {units: 10}]
train: {steps: 4, batch: 8, shards: 1}
optimizer: {sgd: {rate: 0.1}}
"""


def memory(process, what):
    """Memory of a process in bytes: VmHWM is its peak resident size, VmRSS its current one."""
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(rf"^{what}:\s+(\d+) kB", file.read(), re.MULTILINE).group(1)) << 10


def test_dry_runs_at_once_share_one_copy(cluster, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    samples = 40000  # of 784 bytes: 31 MB
    for part, count in (("train", samples), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte", (count, 28, 28), os.urandom(count * 784))
        write_idx(folder / f"{part}-labels-idx1-ubyte", (count,), bytes(i % 10 for i in range(count)))
    job = tmp_path / "wide.yaml"
    job.write_text(JOB)
    pool = cluster(data=folder)
    before = memory(pool.coordinator, "VmHWM")

    def dry_run(_):
        return subprocess.run([pool.program("coppice"), "submit", job, "--dry-run", "--json"], env=pool.environment(), cwd=tmp_path,
                              capture_output=True, text=True, timeout=120, check=False)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        done = list(threads.map(dry_run, range(16)))
    assert [d.returncode for d in done] == [0] * 16, done[0].stderr
    grown = memory(pool.coordinator, "VmHWM") - before
    print(f"16 dry runs: {grown / 1e6:.0f} MB more at the most")
    assert grown < 3 * samples * 784  # the file being read, and the data set: two copies for a moment
    assert pool.stop() == 0
