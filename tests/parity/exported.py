"""Random networks with all kinds of layers on random data, and the results of other programs for their exported files."""

import importlib.util
import pathlib
import subprocess

import numpy as np
from needs import onnxruntime

CLASSES = 5
MASKS = ["dropout", "spatial_dropout", "gaussian_dropout", "alpha_dropout"]
FUNCTIONS = ["relu", "sigmoid", "tanh", "selu", "gelu", "leaky_relu", "softmax"]
FLAT = ["linear", "maxout", "dropconnect"]
IMAGES = ["conv2d", "max_pool2d", "avg_pool2d"]
KINDS = [*FLAT, *IMAGES, *FUNCTIONS, *MASKS, "flatten"]


def write(path, text):
    path.write_text(text)
    return path


class Network:
    """Random network number `number` that contains `kind`, with a job file for data of random shape, type and normalisation."""

    def __init__(self, number, kind, folder):
        self.random = np.random.default_rng([1789, KINDS.index(kind), number])
        self.kinds, self.layers = set(), []
        self.folder = pathlib.Path(folder)
        self.image = kind in [*IMAGES, "spatial_dropout", "flatten"] or self.random.random() < 0.4
        self.shape = tuple(int(d) for d in self.random.integers([1, 6, 6], [4, 13, 13])) if self.image else (int(self.random.integers(3, 300)),)
        self.bytes = self.random.random() < 0.5
        self.normalize = self.one_of("unit", "standard", "none")
        self.choose(kind)
        self.job = write(self.folder / "job.yaml", self.text())

    def one_of(self, *values):
        return values[self.random.integers(len(values))]

    def add(self, kind, **fields):
        self.kinds.add(kind)
        self.layers.append(f"{kind}: {{{', '.join(f'{name}: {value}' for name, value in fields.items())}}}")

    def add_mask(self, kind):
        scope, variant = self.one_of("sample", "shard"), self.one_of("inverted", "classic")
        self.add(kind, p=self.one_of(0, 0.2, 0.5, round(self.random.random() * 0.9, 3)), scope=scope, variant=variant)

    def add_flat(self, kind, units=None):
        units = units or int(self.random.integers(1, 60))
        bias = self.one_of("true", "true", "false")
        if kind == "maxout":
            self.add(kind, units=units, pieces=int(self.random.integers(1, 6)), bias=bias)
        elif kind == "dropconnect":
            self.add(kind, units=units, p=self.one_of(0, 0.3, 0.5), inference="mean", variant=self.one_of("classic", "inverted"),
                     drop_bias=self.one_of("true", "false"), scope=self.one_of("sample", "shard"), bias=bias)
        else:
            self.add(kind, units=units, bias=bias)

    def add_images(self, kind, size):
        """Adds a layer of a kind that needs images; returns the size of its output."""
        kernel = int(self.random.integers(1, min(4, *size) + 1))
        stride, padding = int(self.random.integers(1, 4)), 0
        if kind == "conv2d":
            padding = int(self.random.integers(0, 3))
            self.add(kind, channels=int(self.random.integers(1, 7)), kernel=kernel, stride=stride, padding=padding, bias=self.one_of("true", "false"))
        else:
            self.add(kind, kernel=kernel, stride=stride)
        return tuple((edge + 2 * padding - kernel) // stride + 1 for edge in size)

    def add_any(self, kind):
        if kind in MASKS:
            self.add_mask(kind)
        elif kind == "leaky_relu":
            self.add(kind, slope=round(self.random.random(), 2))
        else:
            self.add(kind)

    def choose(self, kind):
        everywhere = ["relu", "tanh", "leaky_relu", "gelu", "dropout", "gaussian_dropout", "alpha_dropout", kind if kind in FUNCTIONS + MASKS else "selu"]
        if self.image and kind not in FLAT:
            size = self.shape[1:]
            for wanted in ("conv2d", kind if kind in IMAGES else self.one_of(*IMAGES)):
                size = self.add_images(wanted, size)
                self.add_any(kind if kind in FUNCTIONS + MASKS else self.one_of("spatial_dropout", *everywhere))
            self.add("flatten")
        else:
            if self.random.random() < 0.5:
                self.add_mask(self.one_of("dropout", "gaussian_dropout"))
            for wanted in (self.one_of(*FLAT), kind if kind in FLAT else self.one_of(*FLAT)):
                self.add_flat(wanted)
                self.add_any(kind if kind in FUNCTIONS + MASKS else self.one_of(*everywhere))
        self.add_flat(self.one_of(*FLAT), CLASSES)

    def text(self):
        samples = self.random.normal(size=(40, *self.shape)).astype(np.float32)
        if self.bytes:
            samples = self.random.integers(0, 256, samples.shape).astype(np.uint8)
        np.save(self.folder / "x.npy", samples)
        np.save(self.folder / "y.npy", np.arange(40) % CLASSES)
        self.samples = samples
        # Two steps of Adam change every weight, so no bias stays 0.
        return f"""name: exported
seed: {self.random.integers(2**31)}
data: {{source: npy, train: {{images: x.npy, labels: y.npy}}, test: {{images: x.npy, labels: y.npy}}, normalize: {self.normalize}}}
model: [{', '.join('{' + layer + '}' for layer in self.layers)}]
train: {{steps: 2, batch: 40}}
optimizer: {{adam: {{rate: 0.05}}}}
"""

    def input(self):
        """The samples in the form that an exported model takes."""
        if self.bytes and self.normalize != "none":
            return self.samples.astype(np.float32) / np.float32(255)
        return self.samples.astype(np.float32)


def coppice_logits(program, model, samples):
    """Computes the logits by coppice's own forward pass."""
    done = subprocess.run([pathlib.Path(program("coppice")).parent.parent / "tests/logits", model], input=samples.tobytes(), capture_output=True,
                          timeout=60, check=True)
    return np.frombuffer(done.stdout, np.float32).reshape(len(samples), -1)


def onnx_session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides the warning that training_mode may be overridden, which is intended
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def torch_module(path):
    spec = importlib.util.spec_from_file_location("exported_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(found, expected, what):
    """Checks max|a - b| <= 1e-5 max|b|."""
    assert found.shape == expected.shape, what
    largest = np.abs(expected).max()
    worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    assert np.abs(found - expected).max() <= 1e-5 * largest, f"{what}: {worst}: {found[worst]} and {expected[worst]}, largest {largest}"
