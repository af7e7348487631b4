"""The features that dropout learns (docs/measurements/results.md): for three seeds, the mean hidden activation falls to at most 0.6 of its value without
dropout, and pairs of units are less correlated."""

import pytest


def figures(coppice, root, mnist, folder, name, seed, epochs):
    out = folder / f"{name}-{seed}"
    coppice("run", root / f"examples/{name}.yaml", "--data", mnist, "--out", out, "--set", f"seed={seed}", "--set", f"train.epochs={epochs}", "--quiet")
    return coppice("features", out, "--data", mnist, "--json")


def compare(coppice, root, mnist, folder, seed, epochs):
    plain = figures(coppice, root, mnist, folder, "autoencoder", seed, epochs)
    thinned = figures(coppice, root, mnist, folder, "autoencoder-dropout", seed, epochs)
    assert plain["units"] == thinned["units"] == 256 and plain["samples"] == thinned["samples"] == 10000
    assert thinned["mean_activation"] <= 0.6 * plain["mean_activation"]
    assert thinned["zero_share"] > plain["zero_share"]
    assert thinned["correlation"] < plain["correlation"]


def test_features_after_one_epoch(coppice, root, mnist, tmp_path):
    compare(coppice, root, mnist, tmp_path, 1, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_features_after_ten_epochs(coppice, root, mnist, tmp_path, seed):
    compare(coppice, root, mnist, tmp_path, seed, 10)
