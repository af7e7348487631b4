"""A job for each kind of layer, loss and optimizer: it has the same digest for any number of workers, on each instruction set, on arm64, and
with a killed worker. The networks are tiny, on noisy patterns (17 x 18 bytes, five classes)."""

import json
import re
import signal
import subprocess
import time

import pytest

JOB = """
name: {name}
seed: 11
data: {{source: idx, train: {{images: train-images, labels: train-labels}}, test: {{images: test-images, labels: test-labels}}{data}}}
model: [{model}]
loss: {loss}
train: {{steps: {steps}, batch: 50, shards: 6}}
optimizer: {optimizer}
"""
CONV = "conv2d: {channels: 5, kernel: 5, stride: 2, padding: 1, max_norm: 3.0}"
KINDS = {
    "dropout-shard": {"model": "dropout: {p: 0.2, scope: shard}, linear: {units: 37}, relu, dropout: {scope: shard}, linear: {units: 5}"},
    "dropout-classic": {"model": "linear: {units: 37}, relu, dropout: {p: 0.3, variant: classic}, linear: {units: 5}"},
    "conv2d": {"model": f"{CONV}, relu, conv2d: {{channels: 4, kernel: 3}}, relu, flatten, linear: {{units: 5}}"},
    "max_pool2d": {"model": f"{CONV}, relu, max_pool2d: {{kernel: 2}}, flatten, dropout, linear: {{units: 5}}"},
    "avg_pool2d": {"model": f"{CONV}, avg_pool2d: {{kernel: 3, stride: 2}}, flatten, linear: {{units: 5}}"},
    "spatial_dropout": {"model": f"{CONV}, relu, spatial_dropout: {{p: 0.4}}, flatten, linear: {{units: 5}}"},
    "spatial_dropout-shard": {"model": f"{CONV}, relu, spatial_dropout: {{p: 0.5, scope: shard, variant: classic}}, flatten, linear: {{units: 5}}"},
    "gaussian_dropout": {"model": "gaussian_dropout: {p: 0.2}, linear: {units: 21}, relu, gaussian_dropout: {p: 0.5, scope: shard}, linear: {units: 5}"},
    "alpha_dropout": {"model": "linear: {units: 23}, selu, alpha_dropout: {p: 0.1}, linear: {units: 5}"},
    "maxout": {"model": "dropout: {p: 0.2}, maxout: {units: 19, pieces: 3, max_norm: 1.5}, dropout, linear: {units: 5}"},
    "dropconnect": {"model": "linear: {units: 33}, relu, dropconnect: {units: 29, draws: 20, drop_bias: true}, tanh, linear: {units: 5}"},
    "dropconnect-mean": {"model": "dropconnect: {units: 21, p: 0.3, inference: mean, variant: inverted, scope: shard}, relu, linear: {units: 5}"},
    "activations": {"model": "linear: {units: 20}, sigmoid, linear: {units: 20}, tanh, linear: {units: 20}, leaky_relu: {slope: 0.1}, linear: {units: 20}, gelu, linear: {units: 5}"},
    "softmax": {"model": "linear: {units: 20}, softmax, linear: {units: 5}"},
    "smoothing": {"loss": "{cross_entropy: {smoothing: 0.1}}"},
    "mse": {"loss": "mse"},
    "bce": {"loss": "bce"},
    "autoencoder": {"model": "dropout: {p: 0.3}, linear: {units: 30}, relu, linear: {units: 306}", "loss": "bce", "data": ", target: input"},
    "adam": {"optimizer": "{adam: {rate: 0.002, weight_decay: 0.01}}"},
    "adamw": {"optimizer": "{adamw: {schedule: cosine}}"},
    "rmsprop": {"optimizer": "{rmsprop: {rate: 0.001, momentum: 0.5}}"},
    "adagrad": {"optimizer": "adagrad"},
    "standard": {"data": ", normalize: standard"},
    "augment": {"data": ", augment: {shift: 2, flip: true, crop: 1}"},
}
PLAIN = {"model": "dropout: {p: 0.2}, linear: {units: 21}, relu, linear: {units: 5}", "loss": "cross_entropy", "data": "",
         "optimizer": "{sgd: {rate: 0.05, momentum: 0.9}}"}


@pytest.fixture
def kind_job(small, tmp_path):
    small()

    def make(name, steps=12):
        path = tmp_path / f"{name}.yaml"
        path.write_text(JOB.format(name=name, steps=steps, **{**PLAIN, **KINDS[name]}))
        return path

    return make


def test_each_kind_of_layer_has_a_job(layer_kinds):
    models = " ".join(job.get("model", PLAIN["model"]) for job in KINDS.values())
    assert not set(layer_kinds) - set(re.findall(r"\w+", models))


@pytest.mark.parametrize("name", KINDS)
def test_each_job_has_one_digest_in_any_pool(coppice, kind_job, name):
    job = kind_job(name)
    flags = open("/proc/cpuinfo").read()
    seen = {}
    for workers in (1, 2, 3):
        seen[workers] = coppice("run", job, "--workers", workers, "--json", "--quiet")["digest"]
    for isa in ["baseline", "avx2"] + ["avx512"] * ("avx512f" in flags):
        result = coppice("run", job, "--workers", 2, "--json", "--quiet", COPPICE_ISA=isa)
        assert result["isa"] == isa
        seen[isa] = result["digest"]
    assert len(set(seen.values())) == 1, seen
    other = coppice("run", job, "--set", "seed=12", "--workers", 2, "--json", "--quiet")["digest"]
    assert other not in seen.values()


@pytest.mark.qemu
def test_arm64_gives_the_same_digests(arm64, coppice, kind_job, tmp_path):
    for name in KINDS:
        job = kind_job(name, steps=2)
        done = subprocess.run([*arm64("coppice"), "run", str(job), "--workers", "1", "--json", "--quiet"], capture_output=True, text=True,
                              timeout=100, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        there = json.loads(done.stdout.strip().splitlines()[-1])
        assert there["isa"] == "neon"
        assert there["digest"] == coppice("run", job, "--workers", 2, "--json", "--quiet")["digest"], name


def test_killed_worker_changes_no_digest(cluster, coppice, kind_job):
    """Trains each kind in turn on one pool. In the middle of each job, a second worker is stopped, usually while it holds a lease, and killed."""
    repeated = 0
    pool = cluster("ipc")
    pool.worker("steady")
    for number, name in enumerate(KINDS, start=1):
        job = kind_job(name, steps=500)
        victim = pool.worker(f"victim-{number}")
        pool.wait(lambda: any(w["name"] == f"victim-{number}" for w in pool.client("workers", "--json")["workers"]), "the victim")
        pool.client("submit", job, "--data", job.parent, "--no-wait")
        pool.wait_step(5, number)
        victim.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        victim.kill()
        status = pool.client("watch", number, "--json", "--quiet")
        assert status["state"] == "COMPLETED" and status["step"] == 500, name
        repeated += status["leases_repeated"] >= 1
        assert status["digest"] == coppice("run", job, "--workers", 2, "--json", "--quiet")["digest"], name
    assert repeated > len(KINDS) / 2, "leases were given again"
