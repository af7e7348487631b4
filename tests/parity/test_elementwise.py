"""Layers without weights against PyTorch in float64: each kind in 120 random configurations (shape, p, scope, shards, mode), forward and
backward. Masks and noise are made a second time in NumPy from D3; per tensor max|a - b| <= 1e-5 max|b|."""

import dataclasses
import pathlib
import subprocess

import numpy as np
import portable1
import pytest
import torch

SEED, CONFIGURATIONS, TOLERANCE = 20260, 120, 1e-5
SELU_LOWEST = 1.7580993408473766

FUNCTIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "selu": torch.nn.functional.selu,
    "gelu": torch.nn.functional.gelu,
    "relu": torch.relu,
    "softmax": lambda x: torch.softmax(x, dim=1),
}
MASKS = ["dropout", "spatial_dropout", "gaussian_dropout", "alpha_dropout"]
KINDS = [*FUNCTIONS, "leaky_relu", *MASKS]


@dataclasses.dataclass
class Case:
    """One configuration; shape is that of a sample, (features,) or (channels, height, width)."""

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

    def line(self):
        numbers = {"sample": 1, "shard": 2, "inverted": 1, "classic": 2, "train": 1, "eval": 2}
        dims = [*self.shape, 0, 0][:3]
        chosen = [numbers[name] for name in (self.scope, self.variant, self.mode)]
        fields = [self.kind, *dims, repr(self.p), repr(self.slope), *chosen, self.seed, self.layer, self.step, self.columns, self.shards]
        return (" ".join(map(str, fields)) + "\n").encode()

    def per_shard(self, draw):
        parts = [draw(shard, size) for shard, size in enumerate(portable1.shard_sizes(self.columns, self.shards)) if size]
        return torch.from_numpy(np.concatenate(parts))

    def kept(self, units):
        return self.per_shard(
            lambda shard, size: portable1.kept(self.seed, shard, size, self.layer, self.step, units, self.p, self.scope)
        ).double()

    def noise(self, units):
        return self.per_shard(lambda shard, size: portable1.noise(self.seed, shard, size, self.layer, self.step, units, self.scope))

    def forward(self, x):
        """The layer's definition in PyTorch; x is (columns, *shape)."""
        if self.kind == "leaky_relu":
            return torch.nn.functional.leaky_relu(x, self.slope)
        if self.kind in FUNCTIONS:
            return FUNCTIONS[self.kind](x)
        if self.mode == "eval":
            scaled = self.variant == "classic" and self.kind in ("dropout", "spatial_dropout")
            return x * (1 - self.p) if scaled else x
        units = int(np.prod(self.shape))
        if self.kind == "gaussian_dropout":
            return x * (1 + np.sqrt(self.p / (1 - self.p)) * self.noise(units)).reshape(x.shape)
        if self.kind == "alpha_dropout":
            return alpha_dropout(x, self.kept(units).reshape(x.shape), self.p)
        if self.kind == "spatial_dropout":
            kept = self.kept(self.shape[0])[:, :, None, None]
        else:
            kept = self.kept(units).reshape(x.shape)
        return x * kept / (1 - self.p) if self.variant == "inverted" else x * kept


def alpha_dropout(x, kept, p):
    a = 1 / np.sqrt((SELU_LOWEST**2 * p + 1) * (1 - p))
    return x * kept * a + (kept - 1) * SELU_LOWEST * a + SELU_LOWEST * a * p


def random_case(kind, number, random):
    def draw(most):
        return int(random.integers(1, most + 1))

    image = kind == "spatial_dropout" or number % 3 == 0
    shape = (draw(300), draw(4), draw(4)) if image else (draw(700),)
    return Case(
        kind=kind,
        shape=shape,
        p=[0.5, 0.2, 0.75, 0.0, float(random.uniform(0, 0.95))][number % 5],
        slope=[0.01, float(random.uniform(0, 1))][number % 2],
        scope=["sample", "shard"][draw(2) - 1],
        variant=["inverted", "classic"][draw(2) - 1],
        mode="eval" if kind in MASKS and number % 8 == 7 else "train",
        seed=int(random.integers(2**64, dtype=np.uint64)),
        layer=draw(20),
        step=draw(10**6),
        columns=draw(40),
        shards=draw(5),
    )


@pytest.fixture(scope="module")
def one_layer(program):
    return pathlib.Path(program("coppice")).parent.parent / "tests/one_layer"


def run_all(one_layer, cases, inputs):
    """(y, dx) of each case, dx None in evaluation."""
    request = b"".join(
        case.line() + b"".join(np.ascontiguousarray(tensor.reshape(case.columns, -1).T).tobytes() for tensor in pair)
        for case, pair in zip(cases, inputs)
    )
    done = subprocess.run([one_layer], input=request, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    out, at, found = np.frombuffer(done.stdout, np.float32), 0, []
    for case in cases:
        count = case.columns * int(np.prod(case.shape))
        tensors = 1 if case.mode == "eval" else 2
        parts = out[at : at + tensors * count].reshape(tensors, -1, case.columns)
        found.append([part.T.reshape(case.columns, *case.shape) for part in parts])
        at += tensors * count
    assert at == len(out)
    return found


def difference(found, expected):
    scale = np.abs(expected).max()
    return np.abs(found - expected).max() / scale if scale > 0 else np.abs(found).max()


@pytest.mark.parametrize("kind", KINDS)
def test_layer_equals_pytorch(one_layer, kind):
    random = np.random.default_rng([SEED, KINDS.index(kind)])
    cases = [random_case(kind, number, random) for number in range(CONFIGURATIONS)]
    assert sum(np.prod(case.shape) > 256 for case in cases) >= 30
    inputs = []
    for case in cases:
        scale = random.choice([0.1, 1, 4])
        inputs.append([(scale * random.standard_normal((case.columns, *case.shape))).astype(np.float32) for _ in range(2)])
    worst = 0
    for case, (x, dy), found in zip(cases, inputs, run_all(one_layer, cases, inputs)):
        x = torch.from_numpy(x).double().requires_grad_()
        y = case.forward(x)
        y.backward(torch.from_numpy(dy).double())
        for name, tensor, expected in zip(("y", "dx"), found, (y.detach(), x.grad)):
            error = difference(tensor, expected.numpy())
            assert error <= TOLERANCE, f"{case}: {name} differs by {error:.3g} of its largest value"
            worst = max(worst, error)
    print(f"{kind}: {CONFIGURATIONS} configurations, largest relative difference {worst:.2g}")


def test_the_references_are_pytorchs_own_layers():
    """With the masks that PyTorch drew: what is dropped shows in its output."""
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
