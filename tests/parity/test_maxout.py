"""Maxout networks against PyTorch (linear, then the largest of each unit's pieces): the gradient of one step by all weights, and twenty
steps of training with dropout (the same masks) and limited norms. The second layer has more than one block of 256 in its dX."""

import numpy as np
import portable1
import pytest
import torch
from safetensors.numpy import load_file
from test_training import masks_of, torch_parameters

SEED, BATCH, SHARDS = 12345678901, 48, 5
GRADIENT, WEIGHTS = 1e-5, 1e-4  # relative; f32 sums in another order

JOB = """name: maxout
seed: {seed}
model:
  - maxout: {{units: 33, pieces: 4, init: torch, max_norm: {first_norm}}}
  - dropout: {{p: 0.3}}
  - maxout: {{units: 60, pieces: 5, init: torch, bias: {bias}}}
  - linear: {{units: 10, init: torch}}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""
LINEAR = [(0, 132, 33 * 4), (2, 33, 60 * 5), (3, 60, 10)]
NAMES = [f"{index}.{name}" for index, _, _ in LINEAR for name in ("weight", "bias")]


def forward(x, parameters, step):
    hidden = torch.nn.functional.linear(x, *parameters[0:2]).view(-1, 33, 4).max(2).values
    hidden = hidden * masks_of(len(x), 1, step, 33, 0.3, "sample") / (1 - 0.3)
    hidden = torch.nn.functional.linear(hidden, *parameters[2:4]).view(-1, 60, 5).max(2).values
    return torch.nn.functional.linear(hidden, *parameters[4:6])


def train_torch(digits, steps, rate, max_norm, bias):
    parameters = torch_parameters(LINEAR)
    if not bias:
        parameters[3] = torch.zeros(300)
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    x, y = torch.from_numpy(digits.inputs("train")), torch.from_numpy(digits.labels["train"])
    for step, rows in enumerate(portable1.batches(SEED, len(x), BATCH, steps), start=1):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(forward(x[rows], parameters, step), y[rows]).backward()
        optimizer.step()
        if max_norm:
            with torch.no_grad():
                parameters[0].copy_(torch.renorm(parameters[0], 2, 0, max_norm))
    return parameters


def run(coppice, digits, tmp_path, **fields):
    job = digits.job(JOB.format(seed=SEED, batch=BATCH, shards=SHARDS, **fields))
    coppice("run", job, "--workers", 2, "--out", tmp_path / "run", "--json")
    return load_file(tmp_path / "run/model.safetensors")


def check(name, found, expected, tolerance):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    at = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    assert error <= tolerance, f"{name}{list(map(int, at))}: {found[at]}, PyTorch has {expected[at]}"
    return error


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_one_step(coppice, digits, tmp_path, bias):
    rate = 1000  # so long a step that the old weights do not matter
    after = run(coppice, digits, tmp_path, steps=1, rate=rate, first_norm=0, bias=str(bias).lower())
    expected = train_torch(digits, 1, rate, 0, bias)
    assert ("2.bias" in after) == bias
    errors = []
    for name, start, tensor in zip(NAMES, torch_parameters(LINEAR), expected):
        if name in after:
            found = (start.detach().numpy().astype(np.float64) - after[name]) / rate
            errors.append(check(name, found, tensor.grad.numpy(), GRADIENT))
    print(f"maxout: largest relative difference of gradients {max(errors):.2g}")


def test_twenty_steps_with_limited_norms(coppice, digits, tmp_path):
    found = run(coppice, digits, tmp_path, steps=20, rate=0.1, first_norm=0.59, bias="true")
    expected = train_torch(digits, 20, 0.1, 0.59, True)
    for name, tensor in zip(NAMES, expected):
        check(name, found[name], tensor.detach().numpy(), WEIGHTS)
    norms = np.linalg.norm(found["0.weight"].astype(np.float64), axis=1)
    assert norms.max() <= 0.59 * (1 + 1e-6)
    assert 5 < (norms > 0.59 * (1 - 1e-6)).sum() < 127, "some pieces are at the limit, some below"
