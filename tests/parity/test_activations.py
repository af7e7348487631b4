"""A network of every element-wise layer and every mask layer for flat tensors against PyTorch in float64, through the job file: the gradient
of one step by all weights, with masks and noise made a second time in NumPy."""

import numpy as np
import portable1
import pytest
import torch
from safetensors.numpy import load_file
from test_elementwise import alpha_dropout
from test_training import BATCH, SEED, SHARDS, masks_of, torch_parameters

RATE, TOLERANCE = 1000, 1e-5  # so long a step that the old weights do not matter

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


@pytest.mark.parametrize("end", ["logits", "softmax"])
def test_gradients_of_one_step(coppice, digits, tmp_path, end):
    softmax = end == "softmax"
    fields = {"end": "  - softmax\n" if softmax else "", "loss": "mse" if softmax else "cross_entropy"}
    job = digits.job(JOB.format(seed=SEED, batch=BATCH, shards=SHARDS, rate=RATE, **fields))
    coppice("run", job, "--workers", 2, "--out", tmp_path / "run", "--json")
    after = load_file(tmp_path / "run/model.safetensors")

    tensors = [p.detach().double().requires_grad_() for p in torch_parameters(LINEAR)]
    rows = next(portable1.batches(SEED, len(digits.labels["train"]), BATCH, 1))
    x, labels = torch.from_numpy(digits.inputs("train")[rows]).double(), torch.from_numpy(digits.labels["train"][rows])
    z = forward(x, tensors)
    if softmax:
        loss = torch.nn.functional.mse_loss(torch.softmax(z, 1), torch.nn.functional.one_hot(labels, 10).double())
    else:
        loss = torch.nn.functional.cross_entropy(z, labels)
    loss.backward()
    for i, tensor in enumerate(tensors):
        name = f"{LINEAR[i // 2][0]}.{('weight', 'bias')[i % 2]}"
        start, gradient = tensor.detach().numpy(), tensor.grad.numpy()
        # what rounding the new weight to f32 costs, where the step is not that long
        rounding = 2.0**-24 * np.abs(after[name]).max() / RATE
        error = np.abs((start - after[name]) / RATE - gradient).max()
        print(f"{name}: {error / np.abs(gradient).max():.2g}")
        assert error <= TOLERANCE * np.abs(gradient).max() + rounding, name
