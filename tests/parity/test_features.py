"""Compares the figures of `coppice features` with NumPy's from the exported weights, and its picture pixel by pixel. Also tests which input is refused."""

import os
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from safetensors.numpy import load_file

JOB = """name: features
seed: 3
model:
  - linear: {units: 30}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: 60, batch: 50}
optimizer: {sgd: {rate: 0.1}}
"""


def read_png(path):
    """Reads a PNG with 8 bits and three channels, without interlacing (filters: RFC 2083, section 6); returns (height, width, 3)."""
    data, at, image = path.read_bytes(), 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2)
        image += body if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(image), np.uint8).reshape(height, 1 + 3 * width)
    out = np.zeros((height, 3 * width), np.uint8)
    for y, line in enumerate(lines):
        above = out[y - 1] if y else np.zeros(3 * width, np.uint8)
        for x in range(3 * width):
            left, corner = (int(out[y, x - 3]), int(above[x - 3])) if x >= 3 else (0, 0)
            up = int(above[x])
            paeth = min((left, up, corner), key=lambda v: abs(left + up - corner - v))  # ties in the order left, above, upper left
            out[y, x] = (int(line[1 + x]) + (0, left, up, (left + up) // 2, paeth)[line[0]]) & 255
    return out.reshape(height, width, 3)


@pytest.fixture
def trained(coppice, digits):
    """Trains a run; returns its folder, and its weights in f64."""
    coppice("run", digits.job(JOB), "--out", digits.folder / "run", "--quiet")
    coppice("export", digits.folder / "run", "-o", digits.folder / "m.safetensors")
    return digits.folder / "run", {k: v.astype(float) for k, v in load_file(digits.folder / "m.safetensors").items()}


def expected(values):
    varying = values[:, values.std(0) > 0]
    pairs = np.abs(np.corrcoef(varying.T))[np.triu_indices(varying.shape[1], 1)]
    return {"mean_activation": values.mean(), "zero_share": (values == 0).mean(), "dead_share": (values == 0).all(0).mean(), "correlation": pairs.mean()}


@pytest.mark.parametrize("layer", [0, 3])
def test_features_figures_match_numpy(coppice, digits, trained, layer):
    run, w = trained
    values = np.maximum(digits.inputs("test").astype(float) @ w["0.weight"].T + w["0.bias"], 0)
    if layer == 3:  # no activation follows
        values = values @ w["3.weight"].T + w["3.bias"]
    printed = coppice("features", run, "--layer", layer, "--data", digits.folder, "--json")
    assert (printed["layer"], printed["units"], printed["samples"]) == (layer, values.shape[1], len(values))
    for name, value in expected(values).items():
        assert printed[name] == pytest.approx(value, rel=1e-4, abs=2e-4), name
    assert layer == 3 or 0.05 < printed["zero_share"] < 0.95


def test_features_picture_is_exact_to_the_pixel(coppice, digits, trained):
    run, w = trained
    picture = digits.folder / "tiles.png"
    coppice("features", run, "--data", digits.folder, "-o", picture, "--columns", 7)
    image = read_png(picture)
    zoom, gap = 4, 2
    assert image.shape == (gap + 5 * (12 * zoom + gap), gap + 7 * (11 * zoom + gap), 3)
    for unit in range(30):
        y, x = gap + unit // 7 * (12 * zoom + gap), gap + unit % 7 * (11 * zoom + gap)
        tile = w["0.weight"][unit].reshape(12, 11)
        shades = np.rint(255 * (0.5 + 0.5 * tile / np.abs(tile).max()))
        drawn = image[y : y + 12 * zoom, x : x + 11 * zoom].astype(int)
        assert (np.abs(drawn - np.kron(shades, np.ones((zoom, zoom)))[:, :, None]) <= 1).all(), unit


@pytest.mark.parametrize("layer, words", [(1, "layer 1 (relu) has no weights"), (2, "0 (linear), 3 (linear)"), (9, "the model has 4 layers")])
def test_layer_without_weights_is_refused(digits, trained, layer, words):
    picture = digits.folder / "no.png"
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN"))
    done = subprocess.run([program, "features", trained[0], "--layer", str(layer), "--data", digits.folder, "-o", picture],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and words in done.stderr
    assert not picture.exists()
