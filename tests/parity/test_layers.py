"""Compares every kind of layer with PyTorch in float64: 200 random configurations of each (sizes, strides, p, scope, shards, mode), forward and
backward, with max|a - b| <= 1e-5 max|b| for each tensor. PyTorch uses the layer's own masks and noise, in the format of `coppice replay`; NumPy
checks them against D3."""

import dataclasses
import math
import pathlib
import re
import subprocess

import numpy as np
import portable1
import pytest
from needs import torch

SEED, CONFIGURATIONS, TOLERANCE = 20260, 200, 1e-5
SELU_LOWEST = 1.7580993408473766
LARGE = 256  # the block size of a product; some configurations are larger

functional = torch.nn.functional
FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "relu": torch.relu,
    "softmax": lambda x: torch.softmax(x, dim=1),
    "flatten": lambda x: x.flatten(1),
}
MASKS = ["dropout", "spatial_dropout", "gaussian_dropout", "alpha_dropout"]
WEIGHTED = ["linear", "maxout", "conv2d", "dropconnect"]
POOLS = ["max_pool2d", "avg_pool2d"]
KINDS = [*FUNCTIONS, "leaky_relu", *MASKS, *WEIGHTED, *POOLS]
IMAGES = ["spatial_dropout", "conv2d", *POOLS]


@dataclasses.dataclass
class Case:
    """One configuration. `shape` is the shape of a sample, (features,) or (channels, height, width)."""

    kind: str
    shape: tuple
    p: float
    slope: float
    scope: str
    variant: str
    mode: str
    seed: int
    layer: int
    step: int
    columns: int
    shards: int
    units: int = 0
    pieces: int = 0
    kernel: int = 0
    stride: int = 0
    padding: int = 0
    bias: bool = False
    drop_bias: bool = False

    def line(self):
        numbers = {"sample": 1, "shard": 2, "inverted": 1, "classic": 2, "train": 1, "eval": 2}
        dims = [*self.shape, 0, 0][:3]
        sizes = [self.units, self.pieces, self.kernel, self.stride, self.padding, int(self.bias), int(self.drop_bias)]
        chosen = [numbers[name] for name in (self.scope, self.variant, self.mode)]
        fields = [self.kind, *dims, *sizes, repr(self.p), repr(self.slope), *chosen, self.seed, self.layer, self.step, self.columns, self.shards]
        return (" ".join(map(str, fields)) + "\n").encode()

    def out(self):
        """The shape of the output, by PyTorch's rules."""
        if self.kind in ("linear", "maxout", "dropconnect"):
            return (self.units,)
        if self.kind == "flatten":
            return (math.prod(self.shape),)
        if self.kind == "conv2d" or self.kind in POOLS:
            stride = self.stride or self.kernel
            sides = ((size + 2 * self.padding - self.kernel) // stride + 1 for size in self.shape[1:])
            return (self.units or self.shape[0], *sides)
        return self.shape

    def parameters(self):
        """The shapes of weight and bias."""
        if self.kind not in WEIGHTED:
            return []
        rows = self.units * max(1, self.pieces)
        weight = (rows, self.shape[0], self.kernel, self.kernel) if self.kind == "conv2d" else (rows, math.prod(self.shape))
        return [weight, (rows,)] if self.bias else [weight]

    def factors(self):
        """The number of mask or noise factors that the layer reports for a sample."""
        if self.kind == "dropconnect":
            return self.units * (math.prod(self.shape) + (self.drop_bias and self.bias))
        return math.prod(self.shape) if self.kind in MASKS else 0

    def per_shard(self, draw):
        parts = [draw(shard, size) for shard, size in enumerate(portable1.shard_sizes(self.columns, self.shards)) if size]
        return torch.from_numpy(np.concatenate(parts))

    def expected_factors(self):
        """The factors according to D3."""
        units = self.shape[0] if self.kind == "spatial_dropout" else self.factors()
        if self.kind == "gaussian_dropout":
            noise = self.per_shard(lambda shard, size: portable1.noise(self.seed, shard, size, self.layer, self.step, units, self.scope))
            return 1 + math.sqrt(self.p / (1 - self.p)) * noise
        kept = self.per_shard(
            lambda shard, size: portable1.kept(self.seed, shard, size, self.layer, self.step, units, self.p, self.scope)
        ).double()
        if self.kind == "spatial_dropout":
            kept = kept[:, :, None].expand(-1, -1, math.prod(self.shape[1:])).flatten(1)
        if self.kind == "alpha_dropout":
            return kept * alpha_gain(self.p)
        return kept / (1 - self.p) if self.variant == "inverted" else kept

    def forward(self, x, parameters, factors):
        """The layer's definition in PyTorch; x is (columns, *shape)."""
        weight, bias = [*parameters, None, None][:2]
        if self.kind == "leaky_relu":
            return functional.leaky_relu(x, self.slope)
        if self.kind in FUNCTIONS:
            return FUNCTIONS[self.kind](x)
        if self.kind == "linear":
            return functional.linear(x, weight, bias)
        if self.kind == "maxout":
            return functional.linear(x, weight, bias).view(-1, self.units, self.pieces).amax(2)
        if self.kind == "conv2d":
            return functional.conv2d(x, weight, bias, self.stride, self.padding)
        if self.kind == "max_pool2d":
            return functional.max_pool2d(x, self.kernel, self.stride or None)
        if self.kind == "avg_pool2d":
            return functional.avg_pool2d(x, self.kernel, self.stride or None)
        if self.kind == "dropconnect":
            return self.dropconnect(x, weight, bias, factors)
        if self.mode == "eval":
            scaled = self.variant == "classic" and self.kind in ("dropout", "spatial_dropout")
            return x * (1 - self.p) if scaled else x
        factors = factors.reshape(x.shape)
        if self.kind == "alpha_dropout":
            return alpha_dropout(x, (factors != 0).double(), self.p)
        return x * factors

    def dropconnect(self, x, weight, bias, factors):
        if self.mode == "eval":
            keep = 1 - self.p if self.variant == "classic" else 1
            y = keep * functional.linear(x, weight)
            return y if bias is None else y + (keep if self.drop_bias else 1) * bias
        masks = factors[:, : weight.numel()].view(-1, *weight.shape)
        y = torch.einsum("noi,ni->no", weight * masks, x)
        if bias is None:
            return y
        return y + bias * factors[:, weight.numel() :] if self.drop_bias else y + bias


def alpha_gain(p):
    return 1 / np.sqrt((SELU_LOWEST**2 * p + 1) * (1 - p))


def alpha_dropout(x, kept, p):
    a = alpha_gain(p)
    return x * kept * a + (kept - 1) * SELU_LOWEST * a + SELU_LOWEST * a * p


def random_case(kind, number, random):
    def draw(most, least=1):
        return int(random.integers(least, most + 1))

    if kind in ("linear", "maxout", "dropconnect"):
        shape = (draw({"linear": 700, "maxout": 400, "dropconnect": 330}[kind]),)
    elif kind in IMAGES or number % 3 == 0:
        small = kind == "conv2d" or kind in POOLS
        shape = (draw(40 if small else 300), draw(12 if small else 4), draw(12 if small else 4))
    else:
        shape = (draw(700),)
    case = Case(
        kind=kind,
        shape=shape,
        p=[0.5, 0.2, 0.75, 0.0, float(random.uniform(0, 0.95))][number % 5],
        slope=[0.01, float(random.uniform(0, 1))][number % 2],
        scope=["sample", "shard"][draw(2) - 1],
        variant=["inverted", "classic"][draw(2) - 1],
        mode="eval" if kind in [*MASKS, "dropconnect"] and number % 8 == 7 else "train",
        seed=int(random.integers(2**64, dtype=np.uint64)),
        layer=draw(20),
        step=draw(10**6),
        columns=draw(24 if kind == "dropconnect" else 40),
        shards=draw(5),
    )
    if kind in WEIGHTED:
        case.units = draw({"linear": 300, "maxout": 80, "conv2d": 40, "dropconnect": 40}[kind])
        case.bias, case.drop_bias = draw(4) > 1, draw(2) > 1
        case.pieces = draw(9) if kind == "maxout" else 0
    if kind == "conv2d" or kind in POOLS:
        case.padding = draw(2, 0) if kind == "conv2d" else 0
        case.kernel = draw(min(5, *(size + 2 * case.padding for size in shape[1:])))
        case.stride = draw(3) if kind == "conv2d" else draw(3, 0)
    return case


def size_of(case):
    """The inner sizes of the products, which D4 splits into blocks."""
    return max([math.prod(case.shape), *(math.prod(shape[1:]) for shape in case.parameters() if len(shape) > 1)])


@pytest.fixture(scope="module")
def one_layer(program):
    return pathlib.Path(program("coppice")).parent.parent / "tests/one_layer"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Uses one thread, because with such small tensors a second thread only costs time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_inputs(case, random):
    """Random x, dy and parameters, as f32. Where two pieces of a maxout are nearly equal, f32 may choose the other one, so dy is 0 there."""
    scale = random.choice([0.1, 1, 4])
    x, dy = ((scale * random.standard_normal((case.columns, *shape))).astype(np.float32) for shape in (case.shape, case.out()))
    parameters = [(random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))).astype(np.float32) for shape in case.parameters()]
    if case.kind == "maxout" and case.pieces > 1:
        z = x.astype(np.float64) @ parameters[0].T.astype(np.float64) + (parameters[1] if case.bias else 0)
        first, second = np.sort(z.reshape(case.columns, case.units, case.pieces), axis=2)[..., :-3:-1].transpose(2, 0, 1)
        dy[first - second < 1e-5 * np.abs(z).max()] = 0
    return x, dy, parameters


def run_all(one_layer, cases, inputs):
    """Runs all cases in the test program; returns {name: tensor} for each."""
    request = b"".join(
        case.line()
        + b"".join(np.ascontiguousarray(tensor.reshape(case.columns, -1).T).tobytes() for tensor in (x, dy))
        + b"".join(tensor.tobytes() for tensor in parameters)
        for case, (x, dy, parameters) in zip(cases, inputs)
    )
    done = subprocess.run([one_layer], input=request, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    out, at, found = np.frombuffer(done.stdout, np.float32), 0, []

    def take(shape):
        nonlocal at
        at += math.prod(shape)
        return out[at - math.prod(shape) : at].reshape(shape)

    for case in cases:
        tensors = {"y": take((math.prod(case.out()), case.columns)).T.reshape(case.columns, *case.out())}
        if case.mode == "train":
            tensors["dx"] = take((math.prod(case.shape), case.columns)).T.reshape(case.columns, *case.shape)
            for name, shape in zip(("dweight", "dbias"), case.parameters()):
                tensors[name] = take(shape)
            tensors["factors"] = take((case.factors(), case.columns)).T
        found.append(tensors)
    assert at == len(out)
    return found


def difference(found, expected):
    scale = np.abs(expected).max(initial=0)
    return np.abs(found - expected).max(initial=0) / scale if scale > 0 else np.abs(found).max(initial=0)


def expected_of(case, x, dy, parameters, factors):
    """The expected {name: tensor}, computed by PyTorch."""
    x = torch.from_numpy(x).double().requires_grad_()
    parameters = [torch.from_numpy(tensor).double().requires_grad_() for tensor in parameters]
    y = case.forward(x, parameters, None if factors is None else torch.from_numpy(factors.copy()).double())
    y.backward(torch.from_numpy(dy).double())
    tensors = {"y": y.detach(), "dx": x.grad, **dict(zip(("dweight", "dbias"), (tensor.grad for tensor in parameters)))}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def check_factors(case, factors):
    expected = case.expected_factors().numpy()
    assert np.array_equal(factors != 0, expected != 0), f"{case}: other masks than D3's"
    assert difference(factors, expected) <= 1e-6, f"{case}: other factors than D3's"


@pytest.mark.parametrize("kind", KINDS)
def test_layer_equals_pytorch(one_layer, kind):
    random = np.random.default_rng([SEED, KINDS.index(kind)])
    cases = [random_case(kind, number, random) for number in range(CONFIGURATIONS)]
    large = sum(size_of(case) > LARGE for case in cases)
    assert large >= 30
    inputs = [random_inputs(case, random) for case in cases]
    worst = 0
    for case, given, found in zip(cases, inputs, run_all(one_layer, cases, inputs)):
        factors = found.pop("factors", None)
        if factors is not None and factors.size:
            check_factors(case, factors)
        expected = expected_of(case, *given, factors)
        for name, tensor in found.items():
            error = difference(tensor, expected[name])
            assert error <= TOLERANCE, f"{case}: {name} differs by {error:.3g} of its largest value"
            worst = max(worst, error)
    print(f"{kind}: seed {SEED}, {CONFIGURATIONS} configurations, {large} of them larger than {LARGE}; largest relative difference {worst:.2g}")


def test_every_layer_kind_has_a_reference(root):
    registered = re.findall(r"X\((\w+)\)", (root / "common/nn/layers/kinds.h").read_text().split("COP_LAYER_DECLARE")[0])
    assert sorted(registered[1:] if registered[0] == "X" else registered) == sorted(KINDS)


def test_references_equal_pytorchs_own_layers():
    """Compares the references with PyTorch's own layers. The masks that PyTorch drew are read off its output."""
    torch.manual_seed(1)
    x = torch.randn(6, 40, 5, 5, dtype=torch.float64)
    y = torch.nn.AlphaDropout(0.3)(x)
    dropped = alpha_dropout(torch.zeros(1, dtype=torch.float64), 0, 0.3)
    kept = ((y - dropped).abs() > 1e-9).double()
    assert 0.6 < kept.mean() < 0.8
    assert torch.allclose(alpha_dropout(x, kept, 0.3), y, rtol=1e-12, atol=1e-12)
    y = torch.nn.Dropout2d(0.3)(x)
    kept = (y[:, :, :1, :1] != 0).double()
    assert 0.6 < kept.mean() < 0.8
    assert torch.allclose(x * kept / 0.7, y, rtol=1e-12, atol=1e-12)
