"""Compares two networks with PyTorch in float64, through the job file: one with every element-wise layer and every mask layer for flat tensors,
one with convolutions and dropout of channels. Checks the gradient of one step by all weights; NumPy recomputes masks and noise."""

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from test_layers import alpha_dropout
from test_training import BATCH, SEED, SHARDS, masks_of, torch_parameters
from needs import torch

RATE, TOLERANCE = 1000, 1e-5  # a step so large that the old weights do not matter

JOB = """name: activations
seed: {seed}
model:
  - gaussian_dropout: {{p: 0.2}}
  - linear: {{units: 70, init: torch}}
  - tanh
  - dropout: {{p: 0.25, variant: classic}}
  - linear: {{units: 300, init: torch}}
  - gelu
  - gaussian_dropout: {{p: 0.5, scope: shard}}
  - linear: {{units: 50, init: torch}}
  - selu
  - alpha_dropout: {{p: 0.1}}
  - linear: {{units: 40, init: torch}}
  - leaky_relu: {{slope: 0.3}}
  - linear: {{units: 30, init: torch}}
  - sigmoid
  - linear: {{units: 10, init: torch}}
{end}loss: {loss}
train: {{steps: 1, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""
LINEAR = [(1, 132, 70), (4, 70, 300), (7, 300, 50), (10, 50, 40), (12, 40, 30), (14, 30, 10)]


def noise(layer, units, p, scope="sample"):
    sizes = portable1.shard_sizes(BATCH, SHARDS)
    normals = [portable1.noise(SEED, shard, size, layer, 1, units, scope) for shard, size in enumerate(sizes)]
    return 1 + np.sqrt(p / (1 - p)) * torch.from_numpy(np.concatenate(normals))


def forward(x, tensors):
    linear = torch.nn.functional.linear
    x = x * noise(0, 132, 0.2)
    x = torch.tanh(linear(x, *tensors[0:2]))
    x = x * masks_of(BATCH, 3, 1, 70, 0.25, "sample")
    x = torch.nn.functional.gelu(linear(x, *tensors[2:4]))
    x = x * noise(6, 300, 0.5, "shard")
    x = torch.selu(linear(x, *tensors[4:6]))
    x = alpha_dropout(x, masks_of(BATCH, 9, 1, 50, 0.1, "sample").double(), 0.1)
    x = torch.nn.functional.leaky_relu(linear(x, *tensors[6:8]), 0.3)
    return linear(torch.sigmoid(linear(x, *tensors[8:10])), *tensors[10:12])


def weights_after(coppice, digits, tmp_path, text, **fields):
    """All weights by name after the only step of a job."""
    job = digits.job(text.format(seed=SEED, batch=BATCH, shards=SHARDS, rate=RATE, **fields))
    coppice("run", job, "--workers", 2, "--out", tmp_path / "run", "--json")
    return load_file(tmp_path / "run/model.safetensors")


def batch(digits):
    rows = next(portable1.batches(SEED, len(digits.labels["train"]), BATCH, 1))
    return torch.from_numpy(digits.inputs("train")[rows]).double(), torch.from_numpy(digits.labels["train"][rows])


def check_gradients(after, names, tensors):
    """Compares the weights `after` the step with the `tensors` before it and their gradients from PyTorch."""
    for name, tensor in zip(names, tensors):
        start, gradient = tensor.detach().numpy(), tensor.grad.numpy()
        # the error of rounding the new weight to f32, where the step is small
        rounding = 2.0**-24 * np.abs(after[name]).max() / RATE
        error = np.abs((start - after[name]) / RATE - gradient).max()
        print(f"{name}: {error / np.abs(gradient).max():.2g}")
        assert error <= TOLERANCE * np.abs(gradient).max() + rounding, name


@pytest.mark.parametrize("end", ["logits", "softmax"])
def test_gradients_of_flat_layers(coppice, digits, tmp_path, end):
    softmax = end == "softmax"
    fields = {"end": "  - softmax\n" if softmax else "", "loss": "mse" if softmax else "cross_entropy"}
    after = weights_after(coppice, digits, tmp_path, JOB, **fields)
    tensors = [p.detach().double().requires_grad_() for p in torch_parameters(LINEAR)]
    x, labels = batch(digits)
    z = forward(x, tensors)
    if softmax:
        loss = torch.nn.functional.mse_loss(torch.softmax(z, 1), torch.nn.functional.one_hot(labels, 10).double())
    else:
        loss = torch.nn.functional.cross_entropy(z, labels)
    loss.backward()
    check_gradients(after, [f"{index}.{name}" for index, _, _ in LINEAR for name in ("weight", "bias")], tensors)


MAPS = """name: maps
seed: {seed}
model:
  - spatial_dropout: {{p: 0.2}}
  - conv2d: {{channels: 20, kernel: 3, padding: 1, init: torch}}
  - gelu
  - spatial_dropout: {{p: 0.5, variant: {variant}, scope: {scope}}}
  - conv2d: {{channels: 140, kernel: 3, stride: 2, init: torch}}
  - softmax
  - spatial_dropout: {{p: 0.3}}
  - flatten
  - linear: {{units: 10, init: torch}}
loss: cross_entropy
train: {{steps: 1, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""
MAPS_WEIGHTS = {"1": (20, 1, 3, 3), "4": (140, 20, 3, 3), "8": (10, 140 * 5 * 5)}


def channels(layer, count, p, scope="sample"):
    return masks_of(BATCH, layer, 1, count, p, scope).double()[:, :, None, None]


@pytest.mark.parametrize("variant, scope", [("inverted", "sample"), ("classic", "shard")])
def test_gradients_of_feature_maps(coppice, digits, tmp_path, variant, scope):
    after = weights_after(coppice, digits, tmp_path, MAPS, variant=variant, scope=scope)
    tensors = []
    for index, shape in MAPS_WEIGHTS.items():
        bound = 1 / np.sqrt(np.float64(np.prod(shape[1:])))
        for parameter, dims in enumerate([shape, shape[:1]]):
            start = portable1.init_uniform(SEED, int(index), parameter, dims, bound)
            tensors.append(torch.from_numpy(start).double().requires_grad_())
    x, labels = batch(digits)
    x = x.reshape(BATCH, 1, 12, 11) * channels(0, 1, 0.2) / 0.8
    x = torch.nn.functional.gelu(torch.nn.functional.conv2d(x, *tensors[0:2], padding=1))
    x = x * channels(3, 20, 0.5, scope) * (2 if variant == "inverted" else 1)
    x = torch.softmax(torch.nn.functional.conv2d(x, *tensors[2:4], stride=2), dim=1)
    x = x * channels(6, 140, 0.3) / 0.7
    torch.nn.functional.cross_entropy(torch.nn.functional.linear(x.flatten(1), *tensors[4:6]), labels).backward()
    check_gradients(after, [f"{index}.{name}" for index in MAPS_WEIGHTS for name in ("weight", "bias")], tensors)
