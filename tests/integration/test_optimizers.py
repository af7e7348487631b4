"""Every optimizer gives the same digest in any pool, on any instruction set, and in a run that was stopped and resumed."""

import pytest

OPTIMIZERS = {
    "adam": "{adam: {rate: 0.01, weight_decay: 0.001, schedule: {inverse: {decay: 0.01}}}}",
    "adamw": "{adamw: {rate: 0.01, warmup: 20}}",
    "rmsprop": "{rmsprop: {rate: 0.002}}",
    "rmsprop-momentum": "{rmsprop: {rate: 0.001, momentum: 0.5}}",
    "adagrad": "{adagrad: {rate: 0.01}}",
}


def run(coppice, job, optimizer, steps, *arguments, **environment):
    return coppice(
        "run", job, "--json", "--quiet", "--set", f"optimizer={OPTIMIZERS[optimizer]}", "--set", f"train.steps={steps}",
        *arguments, **environment,
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_run_has_the_digest_of_an_uninterrupted_run(coppice, small, tmp_path, optimizer):
    job = small()
    whole = run(coppice, job, optimizer, 100, "--workers", 1)
    assert whole["test_error"] < 0.1, "it learns"
    part = run(coppice, job, optimizer, 63, "--workers", 2, "--out", tmp_path / "r")
    assert part["steps"] == 63 and part["digest"] != whole["digest"]
    resumed = run(coppice, job, optimizer, 100, "--workers", 3, "--out", tmp_path / "r", "--resume", "auto")
    assert resumed["steps"] == 100 and resumed["digest"] == whole["digest"]
    assert run(coppice, job, optimizer, 100, "--workers", 2, COPPICE_ISA="baseline")["digest"] == whole["digest"]


def test_a_checkpoint_of_another_optimizer_is_refused(coppice, small, tmp_path):
    job = small()
    run(coppice, job, "adam", 40, "--out", tmp_path / "r")
    done = coppice(
        "run", job, "--set", f"optimizer={OPTIMIZERS['adamw']}", "--out", tmp_path / "r", "--resume", "auto", status=2
    )
    assert "is a checkpoint of another job" in done.stderr
