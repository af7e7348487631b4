"""Programs without memory: each allocation of their own that fails, one a run. What comes is a sentence and status 1, or all goes on as if
nothing had been; nothing hangs, and in the sanitizers' build nothing is touched that is not there, and nothing leaks. Every fourth here; each one with COPPICE_TEST_EACH=1."""

import json
import os
import struct
import subprocess

import pytest

pytestmark = [pytest.mark.quick, pytest.mark.asan]
STRIDE = 1 if os.environ.get("COPPICE_TEST_EACH") else 4

JOB = """
name: small
data: {source: idx, train: {images: images, labels: labels}, test: {images: images, labels: labels}}
model: [{dropout: {p: 0.2}}, {linear: {units: 9}}, relu, {linear: {units: 3, max_norm: 2.5, bias: false}}]
train: {steps: 3, batch: 30, shards: 4}
optimizer: {sgd: {rate: 0.1, momentum: 0.9}}
checkpoint: {every: 2}
"""


@pytest.fixture
def folder(tmp_path):
    pixels = bytes((17 * i + 5 * (i // 16) ** 2) % 251 for i in range(1600))
    (tmp_path / "images").write_bytes(struct.pack(">IIII", 0x803, 100, 4, 4) + pixels)
    (tmp_path / "labels").write_bytes(struct.pack(">II", 0x801, 100) + bytes(i % 3 for i in range(100)))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def run(program, folder, fails, *words):
    """`coppice run`, its allocation number `fails` failing; 0: none does."""
    return subprocess.run(
        [program("coppice"), "run", "job.yaml", "--workers", "2", "--json", "--quiet", "--out", "run", *words], cwd=folder,
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COPPICE_FAIL_ALLOC": str(fails)},
    )


def test_each_allocation_of_a_run_may_fail(program, folder):
    """Set-up of coordinator and workers, three steps, checkpoints; the run goes on from a checkpoint that was there, and may come to it again."""
    first = run(program, folder, 0)
    digest = json.loads(first.stdout)["digest"]
    whole = json.loads(first.stdout)["allocations"]
    assert whole > 200
    failed = 0
    for fails in range(1, whole + 20, STRIDE):
        done = run(program, folder, fails)
        if done.returncode == 0:
            assert json.loads(done.stdout)["digest"] == digest, fails
            continue
        failed += 1
        assert done.returncode == 1 and "memory" in done.stderr and done.stderr.startswith("coppice run: "), (fails, done.stderr)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, (fails, done.stderr)
    assert failed > 80 // STRIDE, "without memory it does not end well"
    assert json.loads(run(program, folder, 0, "--resume", "auto").stdout)["digest"] == digest
