"""Other programs read a trained model's file: with the safetensors library, NumPy and PyTorch compute the figures of `coppice eval`."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from needs import load_torch, torch

JOB = """name: model-file
seed: 3
model:
  - dropout: {{p: 0.2, variant: {variant}}}
  - linear: {{units: 50}}
  - relu: {{}}
  - dropout: {{p: 0.5, variant: {variant}}}
  - linear: {{units: 10, bias: {bias}}}
train: {{steps: 60, batch: 50, shards: 4}}
optimizer: {{sgd: {{rate: 0.1, momentum: 0.9}}}}
"""


def logits(tensors, x, variant):
    """The network in eval mode, in f64."""
    keep = {"inverted": (1.0, 1.0), "classic": (0.8, 0.5)}[variant]
    hidden = (x.astype(np.float64) * keep[0]) @ tensors["1.weight"].T.astype(np.float64) + tensors["1.bias"]
    hidden = np.maximum(hidden, 0) * keep[1]
    return hidden @ tensors["4.weight"].T.astype(np.float64) + tensors.get("4.bias", 0)


@pytest.mark.parametrize("variant", ["inverted", "classic"])
@pytest.mark.parametrize("bias", ["true", "false"])
def test_numpy_computes_the_same_loss_and_error(coppice, digits, tmp_path, variant, bias):
    job, out = digits.job(JOB.format(variant=variant, bias=bias)), tmp_path / "run"
    summary = coppice("run", job, "--workers", 1, "--out", out, "--json")
    tensors = load_file(out / "model.safetensors")
    assert sorted(tensors) == sorted(["1.weight", "1.bias", "4.weight"] + ["4.bias"] * (bias == "true"))
    z, labels = logits(tensors, digits.inputs("test"), variant), digits.labels["test"]
    top = z.max(axis=1)
    losses = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(len(z)), labels]
    assert abs(summary["test_loss"] - losses.mean()) <= 1e-5
    assert abs(summary["test_error"] - (z.argmax(axis=1) != labels).mean()) < 1e-9


def log_softmax(z):
    return z - z.max(axis=1, keepdims=True) - np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("variant", ["inverted", "classic"])
def test_numpy_computes_the_same_logits(coppice, digits, tmp_path, variant):
    """Compares each sample and class, up to the constant that softmax removes."""
    coppice("run", digits.job(JOB.format(variant=variant, bias="true")), "--out", tmp_path / "run", "--quiet")
    coppice("export", tmp_path / "run", "-o", tmp_path / "exported.safetensors")
    np.save(tmp_path / "test.npy", digits.images["test"])
    lines = coppice("predict", tmp_path / "run", "--input", tmp_path / "test.npy", "--json", lines=True)
    found = np.log(np.array([line["probabilities"] for line in lines]))
    expected = log_softmax(logits(load_file(tmp_path / "exported.safetensors"), digits.inputs("test"), variant))
    assert found.shape == expected.shape == (137, 10)
    assert np.abs(found - expected).max() <= 1e-5


def test_pytorch_loads_the_model_file(coppice, digits, tmp_path):
    out = tmp_path / "run"
    coppice("run", digits.job(JOB.format(variant="inverted", bias="true")), "--out", out, "--json")
    nn = torch.nn
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(132, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10))
    model.load_state_dict(load_torch(out / "model.safetensors"))
    model.eval()
    x = digits.inputs("test")
    with torch.no_grad():
        found = model(torch.from_numpy(x)).numpy()
    assert np.abs(found - logits(load_file(out / "model.safetensors"), x, "inverted")).max() <= 1e-5
