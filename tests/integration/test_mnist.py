"""The network of examples/mnist-dropout.yaml reaches the error in docs/measurements/results.md, with its final weights and no selection on the test set."""

import pytest


@pytest.mark.long
def test_mean_error_of_three_seeds(coppice, root, mnist):
    job = root / "examples/mnist-dropout.yaml"
    plan = coppice("plan", job, "--data", mnist, "--json")
    assert plan["steps"] <= 20 * plan["steps_per_epoch"] and plan["steps_per_epoch"] == 469, "all 60000 samples, 128 at a time"
    errors = []
    for seed in (1, 2, 3):
        result = coppice("run", job, "--data", mnist, "--workers", 2, "--set", f"seed={seed}", "--json", "--quiet", timeout=3600)
        assert result["evaluated_on"] == "test" and result["steps"] == plan["steps"]
        errors.append(result["test_error"])
    print(errors)
    assert sum(errors) / 3 <= 0.0180, errors
