"""Compares networks of convolutions and pools with PyTorch in float64: the gradient of one step by all weights, and ten steps of training, for random
strides, padding, sizes and windows (some patches exceed a block of 256), and max-norm per filter. test_layers.py tests single layers."""

import dataclasses
import math

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file
from needs import torch

SEED, BATCH, SHARDS, CLASSES = 12345678901, 21, 4, 10
IMAGE = (1, 12, 11)
GRADIENT, WEIGHTS = 1e-5, 1e-4  # relative to a tensor's largest value, because f32 sums have another order
LIMIT = 0.57
RATE = 1000  # a single step so large that the old weights do not matter

JOB = """name: conv
seed: {seed}
model:
{layers}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""


@dataclasses.dataclass
class Layer:
    """An entry of the job's list of layers; `shape` is the shape of its output."""

    kind: str
    fields: dict
    shape: tuple

    def line(self):
        fields = ", ".join(f"{name}: {str(value).lower()}" for name, value in self.fields.items())
        return f"  - {self.kind}: {{{fields}}}"

    def run(self, x, weights):
        f = self.fields
        if self.kind == "conv2d":
            return torch.nn.functional.conv2d(x, *weights, stride=f.get("stride", 1), padding=f.get("padding", 0))
        if self.kind == "linear":
            return torch.nn.functional.linear(x, *weights)
        if self.kind == "flatten":
            return x.flatten(1)
        if self.kind == "relu":
            return torch.relu(x)
        pool = torch.nn.functional.max_pool2d if self.kind == "max_pool2d" else torch.nn.functional.avg_pool2d
        return pool(x, f["kernel"], f.get("stride"))


def windows(size, kernel, stride, padding=0):
    return (size + 2 * padding - kernel) // stride + 1


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Uses one thread, because with such small tensors a second thread only costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Network:
    """A random list of pools and convolutions, followed by a linear layer."""

    def __init__(self, number):
        self.random = np.random.default_rng(number)
        self.layers, self.shape = [], IMAGE
        self.pool(0.2)
        self.conv(24, number)
        self.add("relu", {}, self.shape)
        self.pool(0.6)
        self.conv(16, number)
        self.pool(0.4)
        self.add("flatten", {}, (math.prod(self.shape),))
        self.add("linear", {"units": CLASSES, "init": "torch"}, (CLASSES,))

    def draw(self, least, most):
        return int(self.random.integers(least, most + 1))

    def add(self, kind, fields, shape):
        self.layers.append(Layer(kind, fields, shape))
        self.shape = shape

    def pool(self, chance):
        if self.random.random() >= chance:
            return
        _, height, width = self.shape
        kernel = self.draw(1, min(height, width, 4))
        fields = {"kernel": kernel}
        if self.random.integers(2):
            fields["stride"] = self.draw(1, 3)
        stride = fields.get("stride", kernel)
        shape = (self.shape[0], windows(height, kernel, stride), windows(width, kernel, stride))
        self.add("max_pool2d" if self.random.integers(2) else "avg_pool2d", fields, shape)

    def conv(self, most_channels, number):
        _, height, width = self.shape
        padding = self.draw(0, 3)
        kernel = self.draw(1, min(6, height + 2 * padding, width + 2 * padding))
        fields = {"channels": self.draw(most_channels // 4, most_channels), "kernel": kernel, "stride": self.draw(1, 3)}
        if padding:
            fields["padding"] = padding
        if number % 5 == 4:
            fields["bias"] = False
        fields["init"] = "torch"
        sizes = (windows(size, kernel, fields["stride"], padding) for size in (height, width))
        self.add("conv2d", fields, (fields["channels"], *sizes))

    def parameters(self):
        """The job's initial weights, {name: tensor}."""
        tensors, shape = {}, IMAGE
        for index, layer in enumerate(self.layers):
            if layer.kind in ("conv2d", "linear"):
                kernel = (layer.fields["kernel"],) * 2 if layer.kind == "conv2d" else ()
                weight = (layer.shape[0], shape[0], *kernel)
                bound = 1 / math.sqrt(math.prod(weight[1:]))
                for parameter, (name, dims) in enumerate((("weight", weight), ("bias", weight[:1]))):
                    if name == "weight" or layer.fields.get("bias", True):
                        values = portable1.init_uniform(SEED, index, parameter, dims, bound)
                        tensors[f"{index}.{name}"] = torch.from_numpy(values).double().requires_grad_()
            shape = layer.shape
        return tensors

    def forward(self, x, tensors):
        for index, layer in enumerate(self.layers):
            x = layer.run(x, [tensors.get(f"{index}.{name}") for name in ("weight", "bias")])
            assert tuple(x.shape[1:]) == layer.shape
        return x

    def train(self, digits, steps, rate):
        tensors = self.parameters()
        optimizer = torch.optim.SGD(tensors.values(), lr=rate)
        x = torch.from_numpy(digits.inputs("train")).double().view(-1, *IMAGE)
        y = torch.from_numpy(digits.labels["train"])
        for rows in portable1.batches(SEED, len(x), BATCH, steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.forward(x[rows], tensors), y[rows]).backward()
            optimizer.step()
            self.limit(tensors)
        return tensors

    def limit(self, tensors):
        for index, layer in enumerate(self.layers):
            if layer.fields.get("max_norm"):
                with torch.no_grad():
                    weight = tensors[f"{index}.weight"]
                    weight.copy_(torch.renorm(weight, 2, 0, layer.fields["max_norm"]))

    def run(self, coppice, digits, out, steps, rate):
        layers = "\n".join(layer.line() for layer in self.layers)
        job = digits.job(JOB.format(seed=SEED, batch=BATCH, shards=SHARDS, steps=steps, rate=rate, layers=layers))
        coppice("run", job, "--workers", 2, "--out", out, "--json")
        return load_file(out / "model.safetensors")


def check(name, found, expected, tolerance):
    difference = np.abs(found - expected)
    at = np.unravel_index(difference.argmax(), found.shape)
    assert difference.max() <= tolerance * np.abs(expected).max(), f"{name}{list(map(int, at))}: {found[at]}, PyTorch has {expected[at]}"


NUMBERS = range(20)


@pytest.mark.parametrize("number", NUMBERS)
def test_gradients_of_one_step(coppice, digits, tmp_path, number):
    network = Network(number)
    after = network.run(coppice, digits, tmp_path / "run", 1, RATE)
    start = network.parameters()
    assert after.keys() == start.keys()
    for name, tensor in network.train(digits, 1, RATE).items():
        found = (start[name].detach().numpy() - after[name]) / RATE
        assert found.shape == tensor.shape
        check(f"{network.layers}: {name}", found, tensor.grad.numpy(), GRADIENT)


@pytest.mark.parametrize("number", NUMBERS)
def test_ten_steps_equal_pytorch(coppice, digits, tmp_path, number):
    network = Network(number)
    found = network.run(coppice, digits, tmp_path / "run", 10, 0.1)
    for name, tensor in network.train(digits, 10, 0.1).items():
        check(f"{network.layers}: {name}", found[name], tensor.detach().numpy(), WEIGHTS)


def test_random_configurations_cover_all_cases():
    convs = [layer for n in NUMBERS for layer in Network(n).layers if layer.kind == "conv2d"]
    pools = [layer.kind for n in NUMBERS for layer in Network(n).layers if "pool" in layer.kind]
    deep = [t for n in NUMBERS for t in Network(n).parameters().values() if t.ndim == 4 and t[0].numel() > 256]
    assert len({(c.fields["kernel"], c.fields["stride"], c.fields.get("padding", 0)) for c in convs}) > 20
    assert min(pools.count("max_pool2d"), pools.count("avg_pool2d")) > 4 and len(deep) > 3


def test_max_norm_limits_filters(coppice, digits, tmp_path):
    network = Network(6)
    first = next(i for i, layer in enumerate(network.layers) if layer.kind == "conv2d")
    network.layers[first].fields["max_norm"] = LIMIT
    found = network.run(coppice, digits, tmp_path / "run", 10, 0.1)
    for name, tensor in network.train(digits, 10, 0.1).items():
        check(name, found[name], tensor.detach().numpy(), WEIGHTS)

    def norms(filters):
        return np.linalg.norm(filters.reshape(len(filters), -1), axis=1)

    start = norms(network.parameters()[f"{first}.weight"].detach().numpy())
    after = norms(found[f"{first}.weight"].astype(np.float64))
    assert after.max() <= LIMIT * (1 + 1e-6)
    assert (start > 1.05 * LIMIT).any() and (start < 0.95 * LIMIT).any(), "the limit meets some filters, not all"
