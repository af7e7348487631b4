"""Compares 50 steps of every optimizer with PyTorch's: same initial weights, same batches, same schedule of rates. The weights, and the
optimizer's states in the checkpoint, must agree within 1e-4 of each tensor's largest value."""

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from test_training import network, torch_parameters
from needs import torch

SEED, STEPS, BATCH, SHARDS = 12345678901, 50, 48, 5
TOLERANCE = 1e-4  # f32 sums in another order over 50 steps; measured: 4e-7 to 2e-5

JOB = """name: parity
seed: {seed}
model:
{layers}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{{optimizer}}}
"""


def inverse(decay):
    return lambda t: 1 / (1 + decay * t)


def warm_cosine(rate, final, warmup):
    def factor(t):
        cosine = (final + (rate - final) * (1 + np.cos(np.pi * t / STEPS)) / 2) / rate
        return cosine * min(1, (t + 1) / warmup)

    return factor


# The job's optimizer, PyTorch's, and the factor of the rate after t steps, for LambdaLR.
CASES = {
    "sgd": ("sgd: {rate: 0.05, momentum: 0.9}", (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}), None),
    "adam": ("adam: {}", (torch.optim.Adam, {}), None),
    "adam-decay": (
        "adam: {rate: 0.003, beta1: 0.8, beta2: 0.99, epsilon: 1.0e-6, weight_decay: 0.02, schedule: {inverse: {decay: 0.05}}}",
        (torch.optim.Adam, {"lr": 0.003, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.02}),
        inverse(0.05),
    ),
    "adamw": ("adamw: {}", (torch.optim.AdamW, {}), None),
    "adamw-cosine": (
        "adamw: {rate: 0.004, weight_decay: 0.3, schedule: {cosine: {final: 0.0005}}, warmup: 10}",
        (torch.optim.AdamW, {"lr": 0.004, "weight_decay": 0.3}),
        warm_cosine(0.004, 0.0005, 10),
    ),
    "rmsprop": ("rmsprop: {rate: 0.001}", (torch.optim.RMSprop, {"lr": 0.001}), None),
    "rmsprop-momentum": (
        "rmsprop: {rate: 0.0005, alpha: 0.95, epsilon: 1.0e-6, momentum: 0.8, schedule: {step: {every: 20, factor: 0.5}}}",
        (torch.optim.RMSprop, {"lr": 0.0005, "alpha": 0.95, "eps": 1e-6, "momentum": 0.8}),
        lambda t: 0.5 ** (t // 20),
    ),
    "adagrad": ("adagrad: {}", (torch.optim.Adagrad, {}), None),
    "adagrad-exponential": (
        "adagrad: {rate: 0.03, epsilon: 1.0e-6, schedule: {exponential: {factor: 0.97}}}",
        (torch.optim.Adagrad, {"lr": 0.03, "eps": 1e-6}),
        lambda t: 0.97**t,
    ),
}
STATES = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("square_avg", "momentum_buffer"),
    "adagrad": ("sum",),
    "sgd": (),
}


def train_torch(digits, linear, optimizer, factor):
    """Trains in PyTorch; returns the weights, and the optimizer's state of each parameter."""
    parameters = torch_parameters(linear)
    kind, options = optimizer
    optimizer = kind(parameters, foreach=False, **options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or (lambda t: 1))
    x, y = torch.from_numpy(digits.inputs("train")), torch.from_numpy(digits.labels["train"])
    for rows in portable1.batches(SEED, len(x), BATCH, STEPS):
        optimizer.zero_grad()
        hidden = x[rows]
        for depth in range(len(linear)):
            hidden = torch.nn.functional.linear(hidden, *parameters[2 * depth : 2 * depth + 2])
            hidden = torch.relu(hidden) if depth + 1 < len(linear) else hidden
        torch.nn.functional.cross_entropy(hidden, y[rows]).backward()
        optimizer.step()
        schedule.step()
    names = [f"{index}.{name}" for index, _, _ in linear for name in ("weight", "bias")]
    return {name: (p.detach().numpy(), optimizer.state[p]) for name, p in zip(names, parameters)}


def distance(name, found, expected):
    error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
    at = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    assert error <= TOLERANCE, f"{name}{list(map(int, at))}: {found[at]}, PyTorch has {expected[at]}"
    return error


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_equal_pytorch(coppice, digits, tmp_path, case):
    text, optimizer, factor = CASES[case]
    layers, linear = network([132, 40, 30, 10])
    job = digits.job(JOB.format(seed=SEED, layers=layers, steps=STEPS, batch=BATCH, shards=SHARDS, optimizer=text))
    out = tmp_path / "run"
    assert coppice("run", job, "--workers", 2, "--out", out, "--json")["steps"] == STEPS
    weights = load_file(out / "model.safetensors")
    states = load_file(out / "checkpoints" / f"step-{STEPS:08}" / "optimizer.safetensors")
    expected = train_torch(digits, linear, optimizer, factor)
    errors, compared = [], 0
    for name, (tensor, state) in expected.items():
        errors.append(distance(name, weights[name], tensor))
        for kind in STATES[case.split("-")[0]]:
            if kind == "momentum_buffer" and "momentum" not in case:
                assert f"{kind}.{name}" not in states
                continue
            errors.append(distance(f"{kind}.{name}", states[f"{kind}.{name}"], state[kind].numpy()))
            compared += 1
    assert compared == len(states) or case == "sgd"
    print(f"{case}: largest relative difference {max(errors):.2g}")
