"""Evaluations on the pool: the figures of an ensemble are those of `coppice eval` in its own process, to the last bit, whoever computes
them; nothing is lost with a worker, a coordinator or a client."""

import json
import signal
import subprocess
import time

import pytest

MODEL = """
name: {name}
seed: {seed}
data: {{source: idx, train: {{images: train-images, labels: train-labels}}, test: {{images: test-images, labels: test-labels}}{data}}}
model: [{model}]
loss: {loss}
train: {{steps: 30, batch: 50, shards: 6}}
optimizer: {{sgd: {{rate: 0.05, momentum: 0.9}}}}
"""
NETWORK = "dropout: {p: 0.2}, linear: {units: 37}, relu, dropout: {p: 0.5, scope: shard}, linear: {units: 5}"
KINDS = {
    "dropout": NETWORK,
    "spatial_dropout": "conv2d: {channels: 5, kernel: 5, stride: 2}, relu, spatial_dropout: {p: 0.4}, flatten, dropout, linear: {units: 5}",
    "dropconnect": "linear: {units: 33}, relu, dropconnect: {units: 29, draws: 20}, tanh, linear: {units: 5}",
    "gaussian_dropout": "gaussian_dropout: {p: 0.2}, linear: {units: 21}, relu, gaussian_dropout: {scope: shard}, linear: {units: 5}",
    "alpha_dropout": "linear: {units: 23}, selu, alpha_dropout: {p: 0.1}, linear: {units: 5}",
    "maxout": "dropout: {p: 0.2}, maxout: {units: 19, pieces: 3}, dropout, linear: {units: 5}",
}


def figures(told):
    """What must not depend on who computed: everything but the time and the leases."""
    return {k: v for k, v in told.items() if k not in ("seconds", "leases_given", "leases_repeated")}


@pytest.fixture
def job(large):
    """job(name, model, seed): a job file on patterns of five classes; 2300 test samples, so three slices."""
    folder = large()

    def make(name="net", model=NETWORK, seed=11, loss="cross_entropy", data=""):
        path = folder / f"{name}.yaml"
        path.write_text(MODEL.format(name=name, model=model, seed=seed, loss=loss, data=data))
        return path

    return make


@pytest.fixture
def local(coppice, job, tmp_path):
    """local(run, *options): the figures of a run folder from this process alone."""

    def call(run, *options, **environment):
        return figures(coppice("eval", run, "--data", tmp_path, *options, "--json", "--quiet", **environment))

    return call


def train(pool, path):
    """The job on the pool; its number."""
    return pool.client("submit", path, "--data", path.parent, "--json", "--quiet")["job"]


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_pool_gives_the_figures_of_one_process(cluster, coppice, job, local, tmp_path, kind, workers):
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster(kind)
    for i in range(workers):
        pool.worker(f"w{i}", "--threads", str(1 + i % 2))
    number = train(pool, path)
    for options in (["--ensemble", "1,3,40"], ["--ensemble", "7", "--average", "geometric"], ["--average", "weight-scaling"]):
        told = pool.client("eval", number, *options, "--json", "--quiet")
        assert told["leases_given"] >= 3
        assert figures(told) == local(tmp_path / "run", *options)
