"""Compares 200 random networks with PyTorch in float64, with every kind of layer, loss, scope and variant. Each is trained for two steps. `coppice replay`
then writes input, target, parameters, masks and noise of one shard of the second step. From these, PyTorch computes the output of every layer, the
loss and the gradients; for each tensor max|a - b| <= 1e-5 max|b|."""

import concurrent.futures
import math

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_layers import alpha_dropout
from needs import torch

SEED, NETWORKS, GROUPS, TOLERANCE = 4, 200, 20, 1e-5
IMAGE = (1, 12, 11)
JOB = """name: network-{number}
seed: {seed}
{data}model:
{layers}
loss: {loss}
train: {{steps: 2, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: 0.05, momentum: 0.9}}}}
"""
functional = torch.nn.functional
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": functional.gelu, "selu": torch.selu,
               "leaky_relu": functional.leaky_relu, "softmax": lambda x: torch.softmax(x, 1)}
MASKS = ["dropout", "spatial_dropout", "gaussian_dropout", "alpha_dropout", "dropconnect"]


class Network:
    """A random list of (kind, fields); `shape` is the shape of the last layer's output."""

    def __init__(self, number):
        self.random = np.random.default_rng([SEED, number])
        self.number, self.layers, self.shape = number, [], IMAGE
        self.loss = self.one_of("cross_entropy", "cross_entropy", "{cross_entropy: {smoothing: 0.1}}", "mse", "bce")
        self.target = "input" if self.loss in ("mse", "bce") and self.random.integers(2) else "label"
        self.shards = self.draw(1, 5)
        self.batch = self.draw(2 * self.shards, 40)
        if self.random.integers(5) < 2:
            self.convolutions()
        else:
            self.shape = (math.prod(IMAGE),)
            self.mask()
        for _ in range(self.draw(1, 3)):
            self.hidden()
        self.add("linear", {"units": 132 if self.target == "input" else 10}, (10,))

    def draw(self, least, most):
        return int(self.random.integers(least, most + 1))

    def one_of(self, *values):
        return values[self.random.integers(len(values))]

    def add(self, kind, fields, shape):
        self.layers.append((kind, fields))
        self.shape = shape

    def mask(self):
        kind = self.one_of(None, "dropout", "dropout", "gaussian_dropout", "alpha_dropout", *["spatial_dropout"] * (3 if len(self.shape) == 3 else 0))
        if kind:
            fields = {"p": self.one_of(0.5, 0.2, 0.1, round(float(self.random.uniform(0, 0.8)), 3)), "scope": self.one_of("sample", "shard"),
                      "variant": self.one_of("inverted", "classic")}
            self.add(kind, fields, self.shape)

    def activation(self):
        self.add(self.one_of(*ACTIVATIONS), {}, self.shape)

    def convolutions(self):
        self.mask()
        for _ in range(self.draw(1, 2)):
            _, height, width = self.shape
            padding = self.draw(0, 2)
            kernel = self.draw(1, min(5, height + 2 * padding, width + 2 * padding))
            fields = {"channels": self.draw(1, 30), "kernel": kernel, "stride": self.draw(1, 2), "padding": padding, "bias": self.one_of("true", "true", "false")}
            self.add("conv2d", fields, (fields["channels"], *((side + 2 * padding - kernel) // fields["stride"] + 1 for side in (height, width))))
            self.activation()
            self.pool()
            self.mask()
        self.add("flatten", {}, (math.prod(self.shape),))

    def pool(self):
        if self.random.integers(2):
            kernel = self.draw(1, min(3, *self.shape[1:]))
            stride = self.draw(1, 3)
            self.add(self.one_of("max_pool2d", "avg_pool2d"), {"kernel": kernel, "stride": stride},
                     (self.shape[0], *((side - kernel) // stride + 1 for side in self.shape[1:])))

    def hidden(self):
        kind = self.one_of("linear", "maxout", "dropconnect")
        units = self.draw(1, self.one_of(300, 60) if kind == "linear" else 60)
        fields = {"units": units, "bias": self.one_of("true", "true", "false"), "init": self.one_of("he", "glorot", "torch")}
        if kind == "maxout":
            fields["pieces"] = self.draw(1, 6)
        if kind == "dropconnect":
            fields |= {"p": self.one_of(0.5, 0.5, 0.3), "scope": self.one_of("sample", "shard"), "variant": self.one_of("inverted", "classic"),
                       "drop_bias": self.one_of("true", "false"), "inference": "mean"}
        self.add(kind, fields, (units,))
        if kind != "maxout":
            self.activation()
        self.mask()

    def job(self, folder):
        data = "data:\n  source: idx\n" + "".join(
            f"  {part}: {{images: {part}-images.gz, labels: {part}-labels.gz}}\n" for part in ("train", "test")) + f"  target: {self.target}\n"
        layers = "\n".join(f"  - {kind}: {{{', '.join(f'{name}: {value}' for name, value in fields.items())}}}" for kind, fields in self.layers)
        path = folder / f"{self.number}.yaml"
        path.write_text(JOB.format(number=self.number, seed=self.draw(0, 2**31), data=data, layers=layers, loss=self.loss, batch=self.batch, shards=self.shards))
        return path

    def forward(self, t, parameters):
        """The outputs of all layers, with the masks of the replay."""
        x, outputs = t["input"], []
        if self.layers[0][0] not in ("conv2d", "spatial_dropout") and not any(kind == "conv2d" for kind, _ in self.layers):
            x = x.flatten(1)
        for index, (kind, fields) in enumerate(self.layers):
            weight, bias = parameters.get(f"{index}.weight"), parameters.get(f"{index}.bias")
            mask = t.get(f"mask.{index}")
            assert (mask is not None) == (kind in MASKS), f"layer {index} ({kind})"
            if kind in ACTIVATIONS:
                x = ACTIVATIONS[kind](x)
            elif kind == "linear":
                x = functional.linear(x, weight, bias)
            elif kind == "maxout":
                x = functional.linear(x, weight, bias).view(-1, fields["units"], fields["pieces"]).max(2).values
            elif kind == "dropconnect":
                x = torch.einsum("noi,ni->no", weight * mask, x)
                if bias is not None:
                    x = x + bias * t.get(f"mask.{index}.bias", 1.0)
            elif kind == "conv2d":
                x = functional.conv2d(x, weight, bias, fields["stride"], fields["padding"])
            elif kind == "max_pool2d":
                x = functional.max_pool2d(x, fields["kernel"], fields["stride"])
            elif kind == "avg_pool2d":
                x = functional.avg_pool2d(x, fields["kernel"], fields["stride"])
            elif kind == "flatten":
                x = x.flatten(1)
            elif kind == "alpha_dropout":
                x = alpha_dropout(x, (mask != 0).double(), fields["p"])
            else:
                x = x * mask
            outputs.append(x)
        return outputs

    def mean_loss(self, z, target):
        if self.loss in ("mse", "bce"):
            wanted = target.flatten(1) if self.target == "input" else functional.one_hot(target.long(), 10).double()
            return functional.mse_loss(z, wanted) if self.loss == "mse" else functional.binary_cross_entropy_with_logits(z, wanted)
        return functional.cross_entropy(z, target.long(), label_smoothing=0.1 if "smoothing" in self.loss else 0)

    def __str__(self):
        return f"seed {SEED}, network {self.number}: {self.layers}, loss {self.loss} of {self.target}, batch {self.batch}, shards {self.shards}"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def replayed(coppice, folder, network):
    """Replays the last shard of step 2; returns its tensors."""
    coppice("run", network.job(folder), "--workers", 1, "--out", folder / f"{network.number}", "--quiet")
    out = folder / f"{network.number}.safetensors"
    coppice("replay", folder / f"{network.number}", "--step", 2, "--shard", network.shards - 1, "--data", folder, "-o", out)
    return {name: torch.from_numpy(value.astype(np.float64)) for name, value in load_file(out).items()}


def close(found, wanted, what):
    assert found.shape == wanted.shape, f"{what}: {tuple(found.shape)}, PyTorch has {tuple(wanted.shape)}"
    error, largest = (found - wanted).abs().max(), wanted.abs().max()
    assert error <= TOLERANCE * largest, f"{what} differs by {error:.3g}, its largest value is {largest:.3g}"


def check_masks(network, t):
    """Checks masks: dropped values are 0, kept ones have one scale, and scope shard has one mask for all samples."""
    for index, (kind, fields) in enumerate(network.layers):
        if kind not in MASKS:
            continue
        mask = t[f"mask.{index}"]
        same = (mask == mask[:1]).all().item()
        assert same or fields["scope"] == "sample", f"{network}: mask.{index}"
        if kind not in ("gaussian_dropout", "alpha_dropout"):
            scale = 1 / (1 - fields["p"]) if fields["variant"] == "inverted" else 1.0
            assert (torch.minimum(mask.abs(), (mask - scale).abs()) <= 1e-6 * scale).all(), f"{network}: mask.{index}"


def check(network, t):
    check_masks(network, t)
    parameters = {name[6:]: value.clone().requires_grad_() for name, value in t.items() if name.startswith("param.")}
    outputs = network.forward(t, parameters)
    loss = network.mean_loss(outputs[-1], t["target"])
    loss.backward()
    for index, output in enumerate(outputs):
        close(t[f"output.{index}"], output.detach(), f"{network}: output.{index}")
    close(t["loss"], loss.detach().reshape(1), f"{network}: loss")
    assert {name[5:] for name in t if name.startswith("grad.")} == parameters.keys()
    for name, parameter in parameters.items():
        close(t[f"grad.{name}"], parameter.grad, f"{network}: grad.{name}")


@pytest.mark.parametrize("group", range(GROUPS))
def test_shard_matches_pytorch(coppice, digits, group):
    networks = [Network(number) for number in range(group, NETWORKS, GROUPS)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for network, tensors in zip(networks, pool.map(lambda n: replayed(coppice, digits.folder, n), networks)):
            check(network, tensors)


def test_random_networks_cover_all_cases():
    layers = [layer for number in range(NETWORKS) for layer in Network(number).layers]
    kinds = [kind for kind, _ in layers]
    for kind in [*ACTIVATIONS, *MASKS, "linear", "maxout", "conv2d", "max_pool2d", "avg_pool2d", "flatten"]:
        assert kinds.count(kind) >= 20, f"{kind}: {kinds.count(kind)}"
    for kind in MASKS:
        for field, values in (("scope", ("sample", "shard")), ("variant", ("inverted", "classic"))):
            assert {fields[field] for of, fields in layers if of == kind} == set(values)
    assert sum(fields.get("units", 0) > 256 for _, fields in layers) >= 5
