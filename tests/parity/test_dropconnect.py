"""DropConnect's evaluation by moments: compares its draws with the mean of relu over a normal distribution, through whole networks. test_layers.py
and test_networks.py test its training."""

import numpy as np
import pytest
from safetensors.numpy import load_file
from needs import torch

JOB = """name: dropconnect
seed: 99
model:
  - dropconnect: {{units: 70, drop_bias: true, variant: {variant}, draws: 3000}}
  - relu
  - dropconnect: {{units: 20, inference: mean, variant: {variant}}}
  - relu
  - linear: {{units: 10}}
train: {{steps: 400, batch: 40, shards: 4}}
optimizer: {{sgd: {{rate: 0.3}}}}
evaluate: {{every: 100}}
"""


def normal(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi), np.vectorize(lambda v: torch.special.ndtr(torch.tensor(v)).item())(x)


@pytest.mark.parametrize("variant", ["classic", "inverted"])
def test_evaluation_by_moments_matches_relu_of_a_gaussian(coppice, digits, variant):
    """The mean of relu over a Gaussian is known. The mean of many draws approaches it, and so does the loss of the whole network."""
    result = coppice("run", digits.job(JOB.format(variant=variant)), "--out", digits.folder / "run", "--quiet", "--json")
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
