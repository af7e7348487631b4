"""Compares training with PyTorch, without dropout and with dropout of the same masks: with the same initial weights and batches, the weights agree
within 1e-4 after 20 steps."""

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from needs import torch

SEED, STEPS, BATCH, SHARDS = 12345678901, 20, 48, 5
TOLERANCE = 1e-4  # f32 sums in another order, over 20 steps

JOB = """name: parity
seed: {seed}
model:
{layers}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{{sgd}}}}}
"""


def network(sizes, dropout=None):
    """The layers of the job, and (index, in, out) of its linear layers."""
    lines, linear, index = [], [], 0
    for depth in range(len(sizes) - 1):
        if dropout is not None:
            lines.append(f"  - dropout: {{p: {dropout[depth]}, scope: {dropout[-1]}}}")
            index += 1
        lines.append(f"  - linear: {{units: {sizes[depth + 1]}, init: torch}}")
        linear.append((index, sizes[depth], sizes[depth + 1]))
        index += 1
        if depth + 2 < len(sizes):
            lines.append("  - relu: {}")
            index += 1
    return "\n".join(lines), linear


def torch_parameters(linear):
    pairs = [portable1.init_linear(SEED, index, units, inputs) for index, inputs, units in linear]
    return [torch.from_numpy(tensor).requires_grad_() for pair in pairs for tensor in pair]


def masks_of(count, layer, step, units, p, scope):
    sizes = portable1.shard_sizes(count, SHARDS)
    rows = [portable1.kept(SEED, s, size, layer, step, units, p, scope) for s, size in enumerate(sizes)]
    return torch.from_numpy(np.concatenate(rows))


def forward(x, parameters, linear, dropout, step):
    for depth, (index, inputs, _) in enumerate(linear):
        if dropout is not None:
            p = dropout[depth]
            x = x * masks_of(len(x), index - 1, step, inputs, p, dropout[-1]) / (1 - p)
        x = torch.nn.functional.linear(x, parameters[2 * depth], parameters[2 * depth + 1])
        if depth + 1 < len(linear):
            x = torch.relu(x)
    return x


def train_torch(digits, linear, sgd, dropout):
    parameters = torch_parameters(linear)
    optimizer = torch.optim.SGD(parameters, **sgd)
    x, y = torch.from_numpy(digits.inputs("train")), torch.from_numpy(digits.labels["train"])
    for step, rows in enumerate(portable1.batches(SEED, len(x), BATCH, STEPS), start=1):
        optimizer.zero_grad()
        logits = forward(x[rows], parameters, linear, dropout, step)
        torch.nn.functional.cross_entropy(logits, y[rows]).backward()
        optimizer.step()
    return [tensor.detach().numpy() for tensor in parameters]


CASES = {
    "plain": ("rate: 0.1", {"lr": 0.1}, None),
    "momentum": ("rate: 0.05, momentum: 0.9", {"lr": 0.05, "momentum": 0.9}, None),
    "nesterov-decay": (
        "rate: 0.05, momentum: 0.9, nesterov: true, weight_decay: 0.01",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        None,
    ),
    "dropout-sample": ("rate: 0.05, momentum: 0.9", {"lr": 0.05, "momentum": 0.9}, (0.2, 0.5, 0.5, "sample")),
    "dropout-shard": ("rate: 0.05, momentum: 0.9", {"lr": 0.05, "momentum": 0.9}, (0.2, 0.5, 0.3, "shard")),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_pytorch(coppice, digits, tmp_path, case):
    sgd, torch_sgd, dropout = CASES[case]
    layers, linear = network([132, 40, 30, 10], dropout)
    job = digits.job(JOB.format(seed=SEED, layers=layers, steps=STEPS, batch=BATCH, shards=SHARDS, sgd=sgd))
    out = tmp_path / "run"
    summary = coppice("run", job, "--workers", 2, "--out", out, "--json")
    assert summary["steps"] == STEPS
    found = load_file(out / "model.safetensors")
    expected = train_torch(digits, linear, torch_sgd, dropout)
    for depth, (index, _, _) in enumerate(linear):
        for name, tensor in zip(("weight", "bias"), expected[2 * depth : 2 * depth + 2]):
            difference = np.abs(found[f"{index}.{name}"] - tensor)
            at = np.unravel_index(difference.argmax(), difference.shape)
            assert difference[at] <= TOLERANCE, (
                f"{index}.{name}{list(map(int, at))}: {found[f'{index}.{name}'][at]}, PyTorch has {tensor[at]}"
            )
