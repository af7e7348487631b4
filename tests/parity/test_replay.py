"""`coppice replay`: PyTorch computes the same tensors of a shard in float64, from the same input, parameters and masks. The shards add up to
the step, the step leads to the next one, and a replay from a checkpoint equals a replay from the start, bit for bit."""

import os
import shutil
import subprocess

import numpy as np
import portable1
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from needs import torch

JOB = """name: replay
seed: 99
model:
  - dropout: {{p: 0.2, variant: {variant}}}
  - linear: {{units: 41}}
  - {activation}
  - dropout: {{p: 0.5, scope: {scope}, variant: {variant}}}
  - maxout: {{units: 17, pieces: 3}}
  - linear: {{units: 10}}
loss: {loss}
train: {{steps: 40, batch: 60, shards: 7}}
optimizer: {{sgd: {{rate: 0.05, momentum: 0.9}}}}
checkpoint: {{every: 10, keep: 9}}
"""
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": torch.nn.functional.gelu}


def replay(coppice, digits, step, shard=0, run="run"):
    out = digits.folder / "replay.safetensors"
    printed = coppice("replay", digits.folder / run, "--step", step, "--shard", shard, "-o", out, "--data", digits.folder, "--json")
    tensors = {name: torch.from_numpy(value.astype(np.float64)) for name, value in load_file(out).items()}
    out.rename(digits.folder / f"{run.replace('/', '-')}-{step}-{shard}.safetensors")
    return printed, tensors


def close(found, wanted, what, most=1e-5):
    assert found.shape == wanted.shape, what
    assert (found - wanted).abs().max() <= most * wanted.abs().max() + 1e-12, what


def in_pytorch(t, activation, loss):
    """Computes outputs of all layers, the mean loss and its gradients, in float64."""
    p = {name[6:]: value.clone().requires_grad_() for name, value in t.items() if name.startswith("param.")}
    linear = torch.nn.functional.linear
    outputs = [t["input"] * t["mask.0"]]
    outputs.append(linear(outputs[-1], p["1.weight"], p["1.bias"]))
    outputs.append(ACTIVATIONS[activation](outputs[-1]))
    outputs.append(outputs[-1] * t["mask.3"])
    outputs.append(linear(outputs[-1], p["4.weight"], p["4.bias"]).view(-1, 17, 3).max(2).values)
    outputs.append(linear(outputs[-1], p["5.weight"], p["5.bias"]))
    target = t["target"].long()
    if loss == "mse":
        value = ((outputs[-1] - torch.nn.functional.one_hot(target, 10)) ** 2).mean()
    else:
        value = torch.nn.functional.cross_entropy(outputs[-1], target)
    value.backward()
    return outputs, value.detach(), {name: q.grad for name, q in p.items()}


@pytest.mark.parametrize("activation, variant, scope, loss", [
    ("relu", "inverted", "sample", "cross_entropy"),
    ("tanh", "classic", "shard", "cross_entropy"),
    ("sigmoid", "inverted", "shard", "mse"),
    ("gelu", "classic", "sample", "cross_entropy"),
])
def test_shard_matches_pytorch(coppice, digits, activation, variant, scope, loss):
    coppice("run", digits.job(JOB.format(activation=activation, variant=variant, scope=scope, loss=loss)), "--out", digits.folder / "run", "--quiet")
    for step, shard in ((1, 0), (17, 6)):
        _, t = replay(coppice, digits, step, shard)
        outputs, value, gradients = in_pytorch(t, activation, loss)
        for layer, output in enumerate(outputs):
            close(t[f"output.{layer}"], output.detach(), f"output.{layer}")
        close(t["loss"], value.reshape(1), "loss")
        for name, gradient in gradients.items():
            close(t[f"grad.{name}"], gradient, name)
        scale = 2.0 if variant == "inverted" else 1.0
        assert set(t["mask.3"].unique().tolist()) == {0.0, scale}
        assert ((t["mask.3"] == t["mask.3"][:1]).all() == (scope == "shard")).item()


def test_shards_add_up_and_steps_follow_each_other(coppice, digits):
    job = digits.job(JOB.format(activation="relu", variant="inverted", scope="sample", loss="cross_entropy"))
    coppice("run", job, "--out", digits.folder / "run", "--quiet")
    shards = [replay(coppice, digits, 12, shard)[1] for shard in range(7)]
    sizes = [len(t["target"]) for t in shards]
    assert sum(sizes) == 60 and max(sizes) - min(sizes) <= 1
    _, after = replay(coppice, digits, 13)
    _, first = replay(coppice, digits, 1)
    for name in [name[6:] for name in first if name.startswith("param.")]:
        mean = sum(t[f"grad.{name}"] * size for t, size in zip(shards, sizes)) / 60
        close(shards[0][f"mean_grad.{name}"], mean, name)
        for t in shards[1:]:
            assert torch.equal(t[f"mean_grad.{name}"], shards[0][f"mean_grad.{name}"])
        close(after[f"param.{name}"], shards[0][f"param.{name}"] + shards[0][f"update.{name}"], name, 1e-7)
        moved = -0.05 * first[f"mean_grad.{name}"]  # the first step has no momentum; a difference of f32 weights has their rounding errors
        assert (first[f"update.{name}"] - moved).abs().max() <= 1e-7 * max(1, first[f"param.{name}"].abs().max())


def test_replay_from_a_checkpoint_equals_replay_from_the_start(coppice, digits):
    job = digits.job(JOB.format(activation="relu", variant="inverted", scope="sample", loss="cross_entropy"))
    coppice("run", job, "--out", digits.folder / "run", "--workers", 2, "--quiet")
    (digits.folder / "alone").mkdir()
    shutil.copy(digits.folder / "run/model.safetensors", digits.folder / "alone/model.safetensors")
    near, _ = replay(coppice, digits, 27)
    far, _ = replay(coppice, digits, 27, run="alone/model.safetensors")
    assert 0 < near["from_step"] < 27 and far["from_step"] == 0
    files = [digits.folder / f"{name}-27-0.safetensors" for name in ("run", "alone-model.safetensors")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with safe_open(files[0], "numpy") as file:
        metadata = file.metadata()
    assert (metadata["coppice.step"], metadata["coppice.shard"]) == ("27", "0")
    assert "name: replay" in metadata["coppice.job"] and len(metadata["coppice.digest"]) == 64


@pytest.mark.parametrize("options, words", [
    (["--step", "0"], "expected 1 to 40"),
    (["--step", "41"], "was trained for 40 steps"),
    (["--step", "-3"], "--step"),
    ([], "expected --step T"),
    (["--step", "5", "--shard", "7"], "the job has shards 0 to 6"),
])
def test_replay_of_a_step_that_never_ran_is_refused(coppice, digits, options, words):
    coppice("run", digits.job(JOB.format(activation="relu", variant="inverted", scope="sample", loss="cross_entropy")), "--out", digits.folder / "run", "--quiet")
    program, out = shutil.which("coppice", path=os.environ.get("COPPICE_BIN")), digits.folder / "no.safetensors"
    done = subprocess.run([program, "replay", digits.folder / "run", *options, "-o", out, "--data", digits.folder], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not out.exists()


def test_bf16_rounds_weights_and_every_node(coppice, digits):
    """`train.wire: bf16`: a pass reads rounded weights, and the gradient of the step is the sum of its shards along the tree with each node rounded.
    Shards of 8 samples and a batch of 64: the replay's divisions by them, and products with them, are exact."""
    text = JOB.format(activation="relu", variant="inverted", scope="sample", loss="cross_entropy")
    job = digits.job(text.replace("batch: 60, shards: 7", "batch: 64, shards: 8, wire: bf16"))
    plain = digits.job(text.replace("batch: 60, shards: 7", "batch: 64, shards: 8"), "plain.yaml")
    results = [coppice("run", path, "--out", digits.folder / name, "--workers", 3, "--json", "--quiet") for path, name in ((job, "run"), (plain, "plain"))]
    assert results[0]["digest"] != results[1]["digest"]
    out, step = digits.folder / "replay.safetensors", 21
    shards = []
    for shard in range(8):
        coppice("replay", digits.folder / "run", "--step", step, "--shard", shard, "-o", out, "--data", digits.folder)
        shards.append(load_file(out))
    master = load_file(digits.folder / "run/checkpoints/step-00000020/model.safetensors")
    for name, weights in master.items():
        assert (shards[0][f"param.{name}"].view(np.uint32) == portable1.bf16(weights).view(np.uint32)).all()
        assert (portable1.bf16(weights) != weights).any()
        leaves = [tensors[f"grad.{name}"] * np.float32(8) for tensors in shards]
        assert all((portable1.bf16(leaf) == leaf).all() for leaf in leaves)
        found = shards[0][f"mean_grad.{name}"] * np.float32(64)
        assert (found == portable1.shard_sum(leaves, "bf16")).all(), name
        assert name.endswith("bias") or (found != portable1.shard_sum(leaves)).any(), name
