"""DropConnect against PyTorch in float64: networks of random sizes, with the masks that `coppice replay` gives (one weight matrix for each sample);
evaluation by the mean; and the moments' draws against NumPy's normal distribution."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_replay import close, replay

JOB = """name: dropconnect
seed: {seed}
model:
  - dropconnect: {{units: {units[0]}, p: {p}, drop_bias: {drop_bias}, variant: {variant}, scope: {scope}, draws: {draws}, bias: {bias}}}
  - {activation}
  - dropconnect: {{units: {units[1]}, inference: mean, variant: {variant}}}
  - relu
  - linear: {{units: 10}}
loss: cross_entropy
train: {{steps: {steps}, batch: {batch}, shards: {shards}}}
optimizer: {{sgd: {{rate: {rate}}}}}
"""
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": torch.nn.functional.gelu,
               "leaky_relu": torch.nn.functional.leaky_relu, "selu": torch.selu}


def configuration(number):
    random = np.random.default_rng([99, number])

    def one_of(*values):
        return values[random.integers(len(values))]

    most = 330 if number % 6 == 0 else 70
    shards = int(random.integers(1, 6))
    return {
        "seed": int(random.integers(2**31)), "units": [int(u) for u in random.integers(1, most, 2)], "p": one_of(0.5, 0.5, 0.2, 0.75, 0),
        "drop_bias": one_of("true", "false"), "variant": one_of("classic", "inverted"), "scope": one_of("sample", "shard"), "draws": 3,
        "bias": one_of("true", "true", "false"), "activation": one_of(*ACTIVATIONS), "steps": 2, "rate": 0.05, "batch": int(random.integers(shards, 40)), "shards": shards,
    }


def in_pytorch(t, activation):
    p = {name[6:]: value.clone().requires_grad_() for name, value in t.items() if name.startswith("param.")}

    def dropconnect(x, layer):
        y = torch.einsum("noi,ni->no", p[f"{layer}.weight"] * t[f"mask.{layer}"], x)
        bias = p.get(f"{layer}.bias")
        return y if bias is None else y + bias * t.get(f"mask.{layer}.bias", 1.0)

    outputs = [dropconnect(t["input"], 0)]
    outputs.append(ACTIVATIONS[activation](outputs[-1]))
    outputs.append(dropconnect(outputs[-1], 2))
    outputs.append(torch.relu(outputs[-1]))
    outputs.append(torch.nn.functional.linear(outputs[-1], p["4.weight"], p["4.bias"]))
    value = torch.nn.functional.cross_entropy(outputs[-1], t["target"].long())
    value.backward()
    return outputs, value.detach(), {name: q.grad for name, q in p.items()}


@pytest.mark.parametrize("number", range(60))
def test_a_shard_is_what_pytorch_computes(coppice, digits, number):
    c = configuration(number)
    coppice("run", digits.job(JOB.format(**c)), "--out", digits.folder / "run", "--quiet")
    _, t = replay(coppice, digits, 2, c["shards"] - 1)
    samples = len(t["target"])
    assert t["mask.0"].shape == (samples, c["units"][0], 132)
    scale = 1 / (1 - c["p"]) if c["variant"] == "inverted" else 1.0
    assert all(value == 0 or abs(value - scale) < 1e-6 for value in t["mask.0"].unique().tolist())
    kept = (t["mask.0"] != 0).double()
    draws = kept.numel() if c["scope"] == "sample" else kept[0].numel()
    assert abs(kept.mean().item() - (1 - c["p"])) <= 5 * (c["p"] * (1 - c["p"]) / draws) ** 0.5 + 1e-5
    assert ("mask.0.bias" in t) == (c["drop_bias"] == "true" and c["bias"] == "true")
    outputs, value, gradients = in_pytorch(t, c["activation"])
    for layer, output in enumerate(outputs):
        close(t[f"output.{layer}"], output.detach(), f"{c}: output.{layer}")
    close(t["loss"], value.reshape(1), f"{c}: loss")
    for name, gradient in gradients.items():
        close(t[f"grad.{name}"], gradient, f"{c}: {name}")


def normal(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi), np.vectorize(lambda v: torch.special.ndtr(torch.tensor(v)).item())(x)


@pytest.mark.parametrize("variant", ["classic", "inverted"])
def test_evaluation_by_moments(coppice, digits, variant):
    """The mean of relu over a Gaussian is known; many draws come near it, and so does the loss of the whole network."""
    c = {**configuration(1), "units": [70, 20], "p": 0.5, "drop_bias": "true", "variant": variant, "bias": "true", "activation": "relu", "steps": 400, "rate": 0.3,
         "batch": 40, "draws": 3000}
    result = coppice("run", digits.job(JOB.format(**c)), "--out", digits.folder / "run", "--quiet", "--json")
    w = {name: value.astype(np.float64) for name, value in load_file(digits.folder / "run/model.safetensors").items()}
    x = digits.inputs("test").astype(np.float64)
    keep, spread = (0.5, 0.25) if variant == "classic" else (1.0, 1.0)
    mean = keep * (x @ w["0.weight"].T + w["0.bias"])
    deviation = np.sqrt(spread * ((x * x) @ (w["0.weight"] ** 2).T + w["0.bias"] ** 2))
    density, below = normal(mean / deviation)
    hidden = mean * below + deviation * density
    hidden = np.maximum(keep * (hidden @ w["2.weight"].T) + w["2.bias"], 0)
    logits = hidden @ w["4.weight"].T + w["4.bias"]
    logits -= logits.max(1, keepdims=True)
    loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(x)), digits.labels["test"]]).mean()
    plain = np.maximum(keep * (np.maximum(mean, 0) @ w["2.weight"].T) + w["2.bias"], 0) @ w["4.weight"].T + w["4.bias"]
    plain -= plain.max(1, keepdims=True)
    without = (np.log(np.exp(plain).sum(1)) - plain[np.arange(len(x)), digits.labels["test"]]).mean()
    assert abs(result["test_loss"] - loss) < 2e-3 * loss, (result["test_loss"], loss)
    assert abs(without - loss) > 5e-3 * loss, "the moments make a difference that this test would see"
