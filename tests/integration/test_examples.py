"""coppice accepts each job file in examples/ unchanged, and trains it for a few steps, on its data or on MNIST. Each kind of layer occurs in one
of them."""

import pathlib
import re

import pytest

EXAMPLES = sorted(path.name for path in (pathlib.Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def test_there_are_examples():
    assert {"mnist-dropout.yaml", "maxout.yaml", "conv.yaml", "autoencoder.yaml", "spatial-dropout.yaml"} <= set(EXAMPLES)


def kinds_of(path, kinds):
    """Those of `kinds` that occur in the job file's model."""
    text = re.sub(r"(^|\s)#.*", "", path.read_text())
    model = re.search(r"^model:(.*?)(?=^\w|\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    return set(re.findall(r"\w+", model)) & set(kinds)


def test_each_kind_of_layer_has_an_example(root, layer_kinds):
    there = set().union(*(kinds_of(root / "examples" / name, layer_kinds) for name in EXAMPLES))
    assert not set(layer_kinds) - there, "no example trains these: a job file in examples/ is what shows a kind"


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_trains(coppice, root, mnist, layer_kinds, tmp_path, name):
    path = root / "examples" / name
    data = ["--data", mnist] if "source: mnist" in path.read_text() else []
    length = ["--set", "train.steps=4"] if "steps:" in path.read_text() else ["--set", "train.epochs=0.01"]
    few = [] if "source: csv" in path.read_text() else ["--set", "data.validation=500", "--set", "evaluate.on=validation"]
    planned = coppice("plan", path, *data, "--json")
    assert planned["parameters"] > 0 and {layer["kind"] for layer in planned["layers"]} == kinds_of(path, layer_kinds)
    result = coppice("run", path, *data, *length, *few, "--workers", 2, "--out", tmp_path / "run", "--json", "--quiet")
    assert result["state"] == "COMPLETED" and result["steps"] >= 1 and len(result["digest"]) == 64
    assert result["train_loss"] > 0
