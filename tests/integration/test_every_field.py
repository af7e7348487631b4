"""A job that sets every field of docs/reference/job-file.md to a distinct value. It trains, and stays the same when it is printed and read again."""

import re

import pytest

JOB = """
name: all
seed: 18446744073709551615
numerics: portable
priority: -3
audit: 0.5
limits: {workers: 3, timeout: 100, memory: 100000000}
data: {source: synthetic-digits, samples: 900, validation: 100, split: stratified, target: label, normalize: standard, augment: {shift: 1, flip: true, crop: 1}}
dropout: {scope: shard, variant: classic}
model:
  - spatial_dropout: {p: 0.1}
  - conv2d: {channels: 3, kernel: 3, stride: 2, padding: 1, max_norm: 3, bias: false, init: glorot}
  - leaky_relu: {slope: 0.1}
  - max_pool2d: {kernel: 2, stride: 2}
  - avg_pool2d: {kernel: 2, stride: 1}
  - flatten: {}
  - gaussian_dropout: {p: 0.1, scope: sample, variant: inverted}
  - maxout: {units: 10, pieces: 2, max_norm: 1.9, bias: true, init: he}
  - dropconnect: {units: 12, p: 0.4, drop_bias: true, inference: moments, draws: 50, scope: sample, variant: inverted, max_norm: 4, bias: true, init: he}
  - selu
  - alpha_dropout: {p: 0.1, scope: shard, variant: classic}
  - linear: {units: 9, max_norm: 2.0, bias: true, init: torch}
  - relu
  - linear: {units: 9}
  - sigmoid
  - linear: {units: 9}
  - tanh
  - linear: {units: 9}
  - gelu
  - dropout: {p: 0.2, scope: sample, variant: inverted}
  - linear: {units: 9}
  - softmax
  - linear: {units: 10}
loss: {cross_entropy: {smoothing: 0.1}}
train: {epochs: 1.5, batch: 50, shards: 3, last: drop, precision: f32, wire: f32}
optimizer: {%s}
evaluate: {every: 1, on: validation}
checkpoint: {every: 5, keep: 2}
"""
OPTIMIZERS = [
    "sgd: {rate: 0.1, momentum: 0.5, momentum_final: 0.9, momentum_steps: 10, nesterov: true, weight_decay: 0.001, l1: 1.0e-5, "
    "schedule: {step: {every: 5, factor: 0.5}}, warmup: 3}",
    "adam: {rate: 0.01, beta1: 0.8, beta2: 0.99, epsilon: 1.0e-7, weight_decay: 0.1, schedule: {inverse: {decay: 0.1}}, warmup: 3}",
    "adamw: {rate: 0.01, beta1: 0.8, beta2: 0.99, epsilon: 1.0e-7, weight_decay: 0.1, schedule: {exponential: {factor: 0.9}}, warmup: 3}",
    "rmsprop: {rate: 0.01, alpha: 0.9, epsilon: 1.0e-7, momentum: 0.5, schedule: {cosine: {final: 0.001}}, warmup: 3}",
    "adagrad: {rate: 0.1, epsilon: 1.0e-7, schedule: {constant: {}}, warmup: 3}",
]
# Fields for data in files are tested in test_formats.py and test_people_files.py, other losses in test_targets.py.
ELSEWHERE = r"data\.(train|test)(\..*)?|data\.(label|drop|layout|resize)|loss\.(mse|bce)|train\.steps"


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda text: text.split(":")[0])
def test_job_with_all_fields_trains_and_is_printed_completely(coppice, tmp_path, optimizer):
    (tmp_path / "job.yaml").write_text(JOB % optimizer)
    first = coppice("run", "job.yaml", "--workers", 2, "--out", "run", "--json", "--quiet")
    assert first["state"] == "COMPLETED" and first["steps"] == 24
    again = coppice("run", "run/job.yaml", "--workers", 1, "--out", "again", "--json", "--quiet")
    assert again["digest"] == first["digest"]
    assert (tmp_path / "again/job.yaml").read_text() == (tmp_path / "run/job.yaml").read_text()


def test_job_sets_every_documented_field(root):
    text = JOB % ", ".join(OPTIMIZERS)
    fields = re.findall(r"^\| `(- )?([a-z0-9_.]+)` \|", (root / "docs/reference/job-file.md").read_text(), re.MULTILINE)
    assert len(fields) > 100
    for dash, name in fields:
        if dash or not re.fullmatch(ELSEWHERE, name):
            last = name.split(".")[-1]
            assert re.search(rf"\b{last}\b", text), f"{name} is in no job"
