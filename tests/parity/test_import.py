"""`coppice import`: a PyTorch model in f32, f16 or bf16 gives the same evaluation as in PyTorch, and can be trained further. Unsuitable files are refused."""

import json
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
from needs import load_torch, save_torch, torch

JOB = """name: imported
seed: 5
model:
  - linear: {units: 30}
  - tanh
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: 40, batch: 50}
optimizer: {sgd: {rate: 0.1, momentum: 0.9}}
"""


@pytest.fixture
def network():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(132, 30), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(30, 10)).eval()


def refuse(digits, file, *options):
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN"))
    done = subprocess.run([program, "import", file, "--spec", digits.job(JOB), *options], capture_output=True, text=True, timeout=60, check=False,
                          cwd=digits.folder)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_imported_model_evaluates_as_in_pytorch(coppice, digits, network, dtype):
    state = {name: value.to(getattr(torch, dtype)).contiguous() for name, value in network.state_dict().items()}
    save_torch(state, digits.folder / "torch.safetensors")
    coppice("import", digits.folder / "torch.safetensors", "--spec", digits.job(JOB), "-o", digits.folder / "m.safetensors")
    taken = load_torch(digits.folder / "m.safetensors")
    for name, value in state.items():
        assert torch.equal(taken[name], value.float()), name  # exact, because f32 contains all f16 and bf16 values
    network.load_state_dict({name: value.float() for name, value in state.items()})
    x, y = torch.from_numpy(digits.inputs("test")), torch.from_numpy(digits.labels["test"])
    with torch.no_grad():
        logits = network(x)
    printed = coppice("eval", digits.folder / "m.safetensors", "--data", digits.folder, "--json")
    assert printed["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert printed["error"] == pytest.approx((logits.argmax(1) != y).double().mean().item(), abs=1e-9)


def test_subnormal_16_bit_floats_are_exact(coppice, digits, network):
    state = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    halves = np.arange(30, dtype=np.uint16) * 37 + 1  # subnormal and some normal numbers
    halves[15:] |= 0x8000
    state["0.bias"] = torch.from_numpy(halves.view(np.float16).copy())
    save_torch(state, digits.folder / "torch.safetensors")
    coppice("import", digits.folder / "torch.safetensors", "--spec", digits.job(JOB), "-o", digits.folder / "m.safetensors")
    assert torch.equal(load_torch(digits.folder / "m.safetensors")["0.bias"], state["0.bias"].float())


def test_imported_model_can_be_trained_further(coppice, digits, network):
    save_torch({k: v.contiguous() for k, v in network.state_dict().items()}, digits.folder / "torch.safetensors")
    job = digits.job(JOB)
    first = coppice("import", digits.folder / "torch.safetensors", "--spec", job, "--out", digits.folder / "tuned", "--json")
    assert coppice("digest", digits.folder / "tuned").split()[0] == first["digest"]
    tuned = coppice("run", job, "--resume", digits.folder / "tuned", "--json", "--quiet")
    fresh = coppice("run", job, "--out", digits.folder / "fresh", "--json", "--quiet")
    assert tuned["steps"] == 40 and tuned["digest"] not in (first["digest"], fresh["digest"])
    assert tuned["test_error"] < 0.5


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("3.bias"), "has no tensor 3.bias, which the job needs"),
    (lambda s: s.update(extra=torch.zeros(3)), "no parameter for tensor extra"),
    (lambda s: s.update({"0.weight": torch.zeros(132, 30)}), "tensor 0.weight has the shape (132, 30), but the job expects (30, 132)"),
    (lambda s: s.update({"0.bias": torch.zeros(30, dtype=torch.float64)}), "tensor 0.bias has the dtype F64: expected F32, F16 or BF16"),
    (lambda s: s["0.weight"].view(-1).__setitem__(33, float("nan")), "value 33 of tensor 0.weight is NaN"),
    (lambda s: s["3.bias"].__setitem__(2, float("inf")), "value 2 of tensor 3.bias is infinite"),
])
def test_unsuitable_weights_are_refused(digits, network, change, words):
    state = {name: value.clone().contiguous() for name, value in network.state_dict().items()}
    change(state)
    save_torch(state, digits.folder / "torch.safetensors")
    assert words in refuse(digits, "torch.safetensors", "-o", "m.safetensors", "--out", "run")
    assert not (digits.folder / "m.safetensors").exists() and not (digits.folder / "run").exists()


def raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_header_entries_may_have_any_order(coppice, digits, network):
    """The header is a JSON object, whose order is not defined. In other programs' files it may differ from the order of the data."""
    state, at, data, entries = network.state_dict(), 0, b"", {}
    for name in sorted(state, reverse=True):
        piece = state[name].numpy().tobytes()
        entries[name] = {"dtype": "F32", "shape": list(state[name].shape), "data_offsets": [at, at + len(piece)]}
        at, data = at + len(piece), data + piece
    for order in (sorted(entries), sorted(entries, reverse=True), ["3.weight", "0.bias", "3.bias", "0.weight"]):
        raw(digits.folder / "other.safetensors", {name: entries[name] for name in order}, data)
        coppice("import", digits.folder / "other.safetensors", "--spec", digits.job(JOB), "-o", digits.folder / "m.safetensors")
        for name, value in state.items():
            assert torch.equal(load_torch(digits.folder / "m.safetensors")[name], value)


@pytest.mark.parametrize("header, words", [
    (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "has tensor a twice"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
     "begins at byte 0 of the data: expected 4, where the previous tensor ends"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "tensor a begins at byte 4 of the data: expected 0"),
    ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "has 8 bytes of data: its header describes 4"),
    ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, "tensor a has the data_offsets 0 to 8: expected 12 bytes"),
    ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}, "tensor a has the data_offsets 0 to 12: expected 12 bytes within the 8 bytes of data"),
    ({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, 'tensor a has the unknown dtype "C64"'),
    ({"a" * 128: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "a tensor name has 128 bytes: the limit is 127"),
    ({"a": {"dtype": "F64", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, "tensor a is too large"),
    ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "the header is damaged"),
    ({"a": {"dtype": "F32", "shape": [2]}}, "the header is damaged"),
    (b'{"a": ' + b"[" * 5000, "the header is damaged"),
])
def test_wrong_header_is_refused(digits, header, words):
    raw(digits.folder / "torch.safetensors", header, bytes(8))
    assert words in refuse(digits, "torch.safetensors", "-o", "m.safetensors")
    assert not (digits.folder / "m.safetensors").exists()


def test_file_that_is_not_safetensors_is_refused(digits, network):
    (digits.folder / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert "torn.safetensors" in refuse(digits, "torn.safetensors", "-o", "m.safetensors")
    assert "-o FILE" in refuse(digits, "torn.safetensors")
