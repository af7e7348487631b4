"""Compares maxout networks with PyTorch in float64 (linear, then the largest of each unit's pieces): the gradient of one step by all weights, for
random sizes (some exceed a block of 256), and twenty steps of training with dropout (the same masks) and max-norm."""

import dataclasses

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from test_training import masks_of, torch_parameters
from needs import torch

SEED, BATCH, SHARDS = 12345678901, 48, 5
FEATURES, CLASSES = 132, 10
GRADIENT, WEIGHTS = 1e-5, 1e-4  # relative, because f32 sums have another order

JOB = """name: maxout
seed: {seed}
model:
  - maxout: {{units: {first[0]}, pieces: {first[1]}, init: torch, max_norm: {max_norm}}}
  - dropout: {{p: 0.3}}
  - maxout: {{units: {second[0]}, pieces: {second[1]}, init: torch, bias: {bias}}}
  - linear: {{units: 10, init: torch}}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""
NAMES = [f"{index}.{name}" for index in (0, 2, 3) for name in ("weight", "bias")]


@dataclasses.dataclass
class Network:
    """A network with two maxout layers of random units and pieces."""

    first: tuple
    second: tuple
    bias: bool = True
    max_norm: float = 0

    def parameters(self):
        linear = [
            (0, FEATURES, self.first[0] * self.first[1]),
            (2, self.first[0], self.second[0] * self.second[1]),
            (3, self.second[0], CLASSES),
        ]
        tensors = [p.detach().double().requires_grad_() for p in torch_parameters(linear)]
        if not self.bias:
            tensors[3] = torch.zeros_like(tensors[3])
        return tensors

    def forward(self, x, tensors, step):
        hidden = torch.nn.functional.linear(x, *tensors[0:2]).view(-1, *self.first).max(2).values
        hidden = hidden * masks_of(len(x), 1, step, self.first[0], 0.3, "sample") / (1 - 0.3)
        hidden = torch.nn.functional.linear(hidden, *tensors[2:4]).view(-1, *self.second).max(2).values
        return torch.nn.functional.linear(hidden, *tensors[4:6])

    def train(self, digits, steps, rate):
        tensors = self.parameters()
        optimizer = torch.optim.SGD([p for p in tensors if p.requires_grad], lr=rate)
        x, y = torch.from_numpy(digits.inputs("train")).double(), torch.from_numpy(digits.labels["train"])
        for step, rows in enumerate(portable1.batches(SEED, len(x), BATCH, steps), start=1):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.forward(x[rows], tensors, step), y[rows]).backward()
            optimizer.step()
            if self.max_norm:
                with torch.no_grad():
                    tensors[0].copy_(torch.renorm(tensors[0], 2, 0, self.max_norm))
        return tensors

    def run(self, coppice, digits, out, steps, rate):
        fields = {**dataclasses.asdict(self), "bias": str(self.bias).lower()}
        job = digits.job(JOB.format(seed=SEED, batch=BATCH, shards=SHARDS, steps=steps, rate=rate, **fields))
        coppice("run", job, "--workers", 2, "--out", out, "--json")
        return load_file(out / "model.safetensors")


def check(name, found, expected, tolerance):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    at = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    assert error <= tolerance, f"{name}{list(map(int, at))}: {found[at]}, PyTorch has {expected[at]}"
    return error


def random_network(number):
    random = np.random.default_rng(number)

    def draw(most):
        return int(random.integers(1, most + 1))

    return Network((draw(300), draw(6)), (draw(70), draw(9)), bias=bool(random.integers(2)))


@pytest.mark.parametrize("number", range(10))
def test_gradients_of_one_step(coppice, digits, tmp_path, number):
    network = random_network(number) if number else Network((33, 4), (60, 5))
    rate = 1000  # a step so large that the old weights do not matter
    after = network.run(coppice, digits, tmp_path / "run", 1, rate)
    expected = network.train(digits, 1, rate)
    assert ("2.bias" in after) == network.bias
    errors = []
    for name, start, tensor in zip(NAMES, network.parameters(), expected):
        if name in after:
            found = (start.detach().numpy() - after[name]) / rate
            errors.append(check(f"{network}: {name}", found, tensor.grad.numpy(), GRADIENT))
    print(f"{network}: largest relative difference of gradients {max(errors):.2g}")


def test_twenty_steps_with_max_norm(coppice, digits, tmp_path):
    network = Network((33, 4), (60, 5), max_norm=0.59)
    found = network.run(coppice, digits, tmp_path / "run", 20, 0.1)
    for name, tensor in zip(NAMES, network.train(digits, 20, 0.1)):
        check(name, found[name], tensor.detach().numpy(), WEIGHTS)
    norms = np.linalg.norm(found["0.weight"].astype(np.float64), axis=1)
    assert norms.max() <= 0.59 * (1 + 1e-6)
    assert 5 < (norms > 0.59 * (1 - 1e-6)).sum() < 127, "some pieces are at the limit, some below"
