"""Jobs with `target: input` have no classification error, and no output shows one."""

import json

MODEL = "[{dropout: {p: 0.2}}, {linear: {units: 30}}, relu, {linear: {units: 306}}]"
TARGET_INPUT = ("--set", "data.target=input", "--set", f"model={MODEL}", "--set", "loss=bce")


def job_of(small):
    """The job as a file, for `submit`."""
    path = small(steps=100)
    lines = path.read_text().splitlines()
    start, end = lines.index("model:"), next(i for i, line in enumerate(lines) if line.startswith("train:"))
    lines[start:end] = [f"model: {MODEL}", "loss: bce"]
    path.write_text("\n".join(line.replace("data: {", "data: {target: input, ") for line in lines))
    return path


def test_run_reports_a_loss_and_no_error(coppice, small, tmp_path):
    job = small()
    result = coppice("run", job, *TARGET_INPUT, "--workers", 2, "--json", "--quiet", "--out", tmp_path / "r")
    assert "test_error" not in result and 0 < result["test_loss"] < 0.75
    again = coppice("run", job, *TARGET_INPUT, "--workers", 3, "--json", "--quiet")
    assert again["digest"] == result["digest"] and again["test_loss"] == result["test_loss"]
    evaluated = coppice("eval", tmp_path / "r", "--data", tmp_path, "--json")
    assert "error" not in evaluated and evaluated["loss"] == result["test_loss"]
    assert "test error -" in coppice("eval", tmp_path / "r", "--data", tmp_path).stdout
    coppice("plot", tmp_path / "r", "-o", tmp_path / "r.svg")
    drawing = (tmp_path / "r.svg").read_text()
    assert "<svg" in drawing
    table = coppice("run", job, *TARGET_INPUT, "--quiet").stdout
    assert f"test loss   {result['test_loss']:.4f}" in table and "error" not in table


def test_best_checkpoint_has_the_lowest_loss(coppice, small, tmp_path):
    """The job evaluates after each epoch of 11 steps. The loss falls, so the last checkpoint is the best."""
    coppice("run", small(), *TARGET_INPUT, "--set", "data.validation=100", "--workers", 2, "--quiet", "--out", tmp_path / "r")
    assert (tmp_path / "r/checkpoints/best").read_text() == "step-00000100\n"
    state = json.loads((tmp_path / "r/checkpoints/step-00000100/state.json").read_text())
    assert 0 < state["best_error"] < 0.75


def test_pool_shows_no_error_without_classes(cluster, small):
    pool = cluster("ipc")
    pool.worker("a")
    job = job_of(small)
    status = pool.client("submit", job, "--data", ".", "--json", "--quiet")
    assert status["state"] == "COMPLETED"
    assert "test_error" not in status and 0 < status["test_loss"] < 0.75
    (row,) = [line for line in pool.client("jobs").stdout.splitlines() if "COMPLETED" in line]
    assert "%" not in row and " - " in row
    assert f"- (test loss {status['test_loss']:.4f})" in pool.client("status", "1").stdout
    assert "error" not in pool.client("eval", "1", "--json")
    pool.stop()
    pool.start()  # from the store
    again = pool.client("status", "1", "--json")
    assert "test_error" not in again and again["test_loss"] == status["test_loss"]


def test_unsuitable_autoencoder_jobs_are_refused(coppice, small):
    job = small()
    done = coppice("run", job, "--set", "data.target=input", status=2)
    assert "data.target is input, but loss is cross_entropy" in done.stderr
    done = coppice("run", job, "--set", "data.target=input", "--set", "loss=mse", status=2)
    assert "5 outputs, expected 306" in done.stderr and "a sample has 306 features" in done.stderr
    done = coppice("run", job, "--set", "loss={mse: {smoothing: 0.1}}", status=2)
    assert "smoothing" in done.stderr
