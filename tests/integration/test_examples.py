"""Each job file in examples/ is one that coppice takes as it is, and trains: a few steps of each, on the data that it names or on MNIST."""

import pathlib

import pytest

EXAMPLES = sorted(path.name for path in (pathlib.Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def test_there_are_examples():
    assert {"mnist-dropout.yaml", "maxout.yaml", "conv.yaml", "autoencoder.yaml", "spatial-dropout.yaml"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_trains(coppice, root, mnist, tmp_path, name):
    path = root / "examples" / name
    data = ["--data", mnist] if "source: mnist" in path.read_text() else []
    length = ["--set", "train.steps=4"] if "steps:" in path.read_text() else ["--set", "train.epochs=0.01"]
    planned = coppice("plan", path, *data, "--json")
    assert planned["parameters"] > 0 and planned["layers"]
    result = coppice("run", path, *data, *length, "--workers", 2, "--out", tmp_path / "run", "--json", "--quiet")
    assert result["state"] == "COMPLETED" and result["steps"] >= 1 and len(result["digest"]) == 64
    assert result["train_loss"] > 0
