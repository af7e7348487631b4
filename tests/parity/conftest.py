"""Fixtures of the parity tests: the `coppice` program, small IDX data sets, and runs.

The program comes from the folder COPPICE_BIN or from PATH. Without it these tests fail, instead of being skipped."""

import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess

import numpy as np
import pytest


@pytest.fixture(scope="session")
def coppice():
    folder = os.environ.get("COPPICE_BIN")
    program = shutil.which("coppice", path=folder) if folder else shutil.which("coppice")
    assert program, "no coppice program: set COPPICE_BIN to the build's bin folder"

    def call(*arguments, cwd=None, lines=False):
        done = subprocess.run(
            [program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"coppice {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}"
        if "--json" not in arguments:
            return done.stdout
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        return printed if lines else printed[-1]

    return call


def write_idx(path, values):
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + b"".join(struct.pack(">I", d) for d in values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.astype(np.uint8).tobytes())


class Digits:
    """A data set of ten noisy patterns of 12 x 11 bytes, similar to MNIST."""

    def __init__(self, folder, train=500, test=137):
        random = np.random.default_rng(7)
        self.patterns = random.integers(0, 256, (10, 12, 11))
        self.folder = pathlib.Path(folder)
        self.images, self.labels = {}, {}
        for part, count in (("train", train), ("test", test)):
            labels = random.integers(0, 10, count)
            labels[:10] = np.arange(10)
            noise = random.integers(0, 256, (count, 12, 11))
            self.images[part] = ((self.patterns[labels] + 2 * noise) // 3).astype(np.uint8)
            self.labels[part] = labels
            write_idx(self.folder / f"{part}-images.gz", self.images[part])
            write_idx(self.folder / f"{part}-labels.gz", labels)

    def inputs(self, part):
        return self.images[part].reshape(len(self.labels[part]), -1).astype(np.float32) / np.float32(255)

    def job(self, text, name="job.yaml"):
        """Writes a job file for these data; returns its path."""
        source = "data:\n  source: idx\n" + "".join(
            f"  {part}: {{images: {part}-images.gz, labels: {part}-labels.gz}}\n" for part in ("train", "test")
        )
        path = self.folder / name
        path.write_text(source + text)
        return path


@pytest.fixture
def digits(tmp_path):
    return Digits(tmp_path)
