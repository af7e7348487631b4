"""Compares every loss with PyTorch: its value over a batch and over the test part, its gradient by all weights, and twenty steps of training.
The gradient is measured by one SGD step that is so large that the old weights do not matter."""

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from test_training import masks_of, network, torch_parameters
from needs import torch

SEED, BATCH, SHARDS = 12345678901, 48, 5
RATE = 1000  # of the single step that shows the gradient
VALUE, GRADIENT, WEIGHTS = 2e-6, 1e-5, 1e-4  # relative, because f32 sums have another order

JOB = """name: losses
seed: {seed}
model:
{layers}
loss: {loss}
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""

bce = torch.nn.functional.binary_cross_entropy_with_logits
mse = torch.nn.functional.mse_loss


def one_hot(y):
    return torch.nn.functional.one_hot(y, 10).to(torch.float32)


# the job's loss, whether the target is the input, PyTorch's loss(outputs, inputs, labels), whether there is input dropout
CASES = {
    "cross-entropy": ("cross_entropy", False, lambda z, x, y: torch.nn.functional.cross_entropy(z, y), False),
    "smoothing": (
        "{cross_entropy: {smoothing: 0.1}}",
        False,
        lambda z, x, y: torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1),
        False,
    ),
    "mse": ("mse", False, lambda z, x, y: mse(z, one_hot(y)), False),
    "bce": ("bce", False, lambda z, x, y: bce(z, one_hot(y)), False),
    "mse-input": ("mse", True, lambda z, x, y: mse(z, x), False),
    "bce-input": ("bce", True, lambda z, x, y: bce(z, x), False),
    "bce-denoising": ("bce", True, lambda z, x, y: bce(z, x), True),
}


def forward(x, parameters, linear, drops, step):
    hidden = x
    if drops and step:
        hidden = x * masks_of(len(x), 0, step, x.shape[1], 0.2, "sample") / (1 - 0.2)
    for depth in range(len(linear)):
        hidden = torch.nn.functional.linear(hidden, *parameters[2 * depth : 2 * depth + 2])
        hidden = torch.relu(hidden) if depth + 1 < len(linear) else hidden
    return hidden


class Twin:
    """A case, as a coppice job and in PyTorch."""

    def __init__(self, case, digits):
        self.loss, self.target_input, self.function, self.drops = CASES[case]
        self.digits = digits
        self.layers, self.linear = network([132, 40, 132 if self.target_input else 10])
        if self.drops:
            self.layers = "  - dropout: {p: 0.2}\n" + self.layers
            self.linear = [(index + 1, *sizes) for index, *sizes in self.linear]
        self.names = [f"{index}.{name}" for index, _, _ in self.linear for name in ("weight", "bias")]

    def run(self, coppice, out, steps, rate):
        text = JOB.format(
            seed=SEED, layers=self.layers, loss=self.loss, steps=steps, batch=BATCH, shards=SHARDS, rate=rate
        )
        if self.target_input:
            text = "  target: input\n" + text  # belongs to the data section, with which the job file begins
        summary = coppice("run", self.digits.job(text), "--workers", 2, "--out", out, "--json")
        assert summary["steps"] == steps
        return summary, load_file(out / "model.safetensors")

    def torch_steps(self, steps, rate):
        """Trains in PyTorch; returns the loss of the first batch, the gradients of the last, and the final weights."""
        parameters = torch_parameters(self.linear)
        optimizer = torch.optim.SGD(parameters, lr=rate)
        x, y = torch.from_numpy(self.digits.inputs("train")), torch.from_numpy(self.digits.labels["train"])
        losses = []
        for step, rows in enumerate(portable1.batches(SEED, len(x), BATCH, steps), start=1):
            optimizer.zero_grad()
            loss = self.function(forward(x[rows], parameters, self.linear, self.drops, step), x[rows], y[rows])
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        return losses, [p.grad.numpy() for p in parameters], parameters

    def torch_test_loss(self, weights):
        tensors = [torch.from_numpy(weights[name].astype(np.float64)) for name in self.names]
        x, y = torch.from_numpy(self.digits.inputs("test")), torch.from_numpy(self.digits.labels["test"])
        z = forward(x.double(), tensors, self.linear, self.drops, 0)
        return self.function(z, x.double(), y).item()


def check(name, found, expected, tolerance):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    at = np.unravel_index(np.abs(found - expected).argmax(), np.shape(found))
    assert error <= tolerance, f"{name}{list(map(int, at))}: {found[at]}, PyTorch has {expected[at]}"
    return error


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_of_one_step(coppice, digits, tmp_path, case):
    twin = Twin(case, digits)
    summary, after = twin.run(coppice, tmp_path / "run", 1, RATE)
    losses, gradients, _ = twin.torch_steps(1, RATE)
    errors = [abs(summary["train_loss"] / losses[0] - 1)]
    assert errors[0] <= VALUE, f"{summary['train_loss']}, PyTorch has {losses[0]}"
    assert summary["test_loss"] == pytest.approx(twin.torch_test_loss(after), rel=VALUE)
    assert ("test_error" in summary) != twin.target_input
    before = [tensor.detach().numpy().astype(np.float64) for tensor in torch_parameters(twin.linear)]
    for name, start, gradient in zip(twin.names, before, gradients):
        errors.append(check(name, (start - after[name]) / RATE, gradient, GRADIENT))
    print(f"{case}: relative differences: value {errors[0]:.2g}, gradients {max(errors[1:]):.2g}")


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_pytorch(coppice, digits, tmp_path, case):
    twin = Twin(case, digits)
    summary, weights = twin.run(coppice, tmp_path / "run", 20, 0.1)
    losses, _, parameters = twin.torch_steps(20, 0.1)
    for name, tensor in zip(twin.names, parameters):
        check(name, weights[name], tensor.detach().numpy(), WEIGHTS)
    assert losses[-1] < losses[0], "it learns"
    assert summary["test_loss"] == pytest.approx(twin.torch_test_loss(weights), rel=VALUE)
