"""`coppice plan` on layers: it shows what each does in training and evaluation, warns on standard error, and refuses misplaced layers with file and line."""

import json
import subprocess

import pytest

from integration_tools import write_idx

JOB = """name: plan
data: {{source: idx, train: {{images: images, labels: labels}}, test: {{images: images, labels: labels}}}}
model:
{layers}
loss: {loss}
train: {{steps: 2, batch: 20, shards: 2}}
optimizer: {{sgd: {{rate: 0.1}}}}
"""


@pytest.fixture
def plan(program, tmp_path):
    write_idx(tmp_path / "images", (20, 6, 6), bytes(720))
    write_idx(tmp_path / "labels", (20,), [i % 10 for i in range(20)])

    def call(layers, loss="cross_entropy"):
        (tmp_path / "job.yaml").write_text(JOB.format(layers="\n".join(f"  - {layer}" for layer in layers), loss=loss))
        return subprocess.run(
            [program("coppice"), "plan", "job.yaml", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return call


def test_plan_shows_what_each_layer_does_in_training_and_evaluation(plan):
    done = plan(
        [
            "gaussian_dropout: {p: 0.2, scope: shard}",
            "linear: {units: 20}",
            "selu",
            "alpha_dropout: {p: 0.1}",
            "linear: {units: 20}",
            "gelu",
            "dropout: {p: 0.5}",
            "dropout: {p: 0.25, variant: classic}",
            "linear: {units: 10}",
        ]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    modes = {layer["kind"]: (layer["train"], layer["eval"]) for layer in json.loads(done.stdout)["layers"][:7]}
    assert modes == {
        "gaussian_dropout": ("x noise of mean 1, variance 0.25, per shard", "identity"),
        "linear": ("-", "-"),
        "selu": ("-", "-"),
        "alpha_dropout": ("set 0.1 to selu's minimum per sample, rescale", "identity"),
        "gelu": ("-", "-"),
        "dropout": ("drop 0.5 per sample, x 2", "identity"),
    }
    classic = json.loads(done.stdout)["layers"][7]
    assert (classic["train"], classic["eval"]) == ("drop 0.25 per sample", "x 0.75")


def test_plan_shows_which_layers_a_thinned_member_makes_smaller(plan):
    job = ["dropout: {p: 0.2, scope: shard}", "linear: {units: 40}", "relu", "dropout: {p: 0.5, scope: shard}", "linear: {units: 30}",
           "sigmoid", "dropout: {p: 0.5}", "linear: {units: 10}"]
    layers = json.loads(plan(job).stdout)["layers"]
    assert {layer["index"]: layer["member"] for layer in layers if "member" in layer} == {1: "thin: 0.4 of the weights", 4: "thin: 0.5 of the weights"}
    job[2] = "relu\n  - sigmoid"  # before the mask, it changes nothing
    assert [layer.get("member") for layer in json.loads(plan(job).stdout)["layers"]][1] == "thin: 0.4 of the weights"
    job[3] += "\n  - sigmoid"  # after the mask, dropped units become 1/2: the layer is masked, not made smaller
    assert [layer.get("member") for layer in json.loads(plan(job).stdout)["layers"]][1] == "thin: 0.8 of the weights"


def test_plan_shows_how_dropconnect_evaluates(plan):
    done = plan(["dropconnect: {units: 30}", "relu", "dropconnect: {units: 10, p: 0.2, drop_bias: true, inference: mean, variant: inverted}"])
    assert done.returncode == 0, done.stderr
    first, _, last = json.loads(done.stdout)["layers"]
    assert (first["train"], first["eval"]) == ("drop 0.5 of the weights per sample", "next layer's mean over 1000 draws")
    assert (last["train"], last["eval"]) == ("drop 0.2 of the weights, biases per sample, x 1.25", "mean of the weights")
    done = plan(["linear: {units: 30}", "dropconnect: {units: 10}"])
    assert done.returncode == 2
    assert "model[1] dropconnect: inference: moments needs an element-wise layer (relu, sigmoid ...) directly after it, found none" in done.stderr


def test_softmax_before_cross_entropy_gives_a_warning(plan):
    done = plan(["linear: {units: 10}", "softmax"])
    assert done.returncode == 0
    assert done.stderr.startswith("model[1] softmax: the loss cross_entropy takes logits")


def test_misplaced_layers_are_refused(plan):
    done = plan(["linear: {units: 10}", "alpha_dropout: {p: 0.5}"])
    assert done.returncode == 2
    assert "model[1] alpha_dropout: it would drop outputs of the network" in done.stderr
    done = plan(["linear: {units: 5}", "spatial_dropout: {p: 0.5}", "linear: {units: 10}"])
    assert done.returncode == 2
    assert "model[1] spatial_dropout: it drops channels of images, but its input is flat (5 values)" in done.stderr
    done = plan(["linear: {units: 5}", "leaky_relu: {slope: 2}", "linear: {units: 10}"])
    assert done.returncode == 2
    assert "slope" in done.stderr
