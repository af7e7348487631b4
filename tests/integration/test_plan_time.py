"""`coppice plan --time`: a prediction from a trial, which the cache keeps."""

import json
import os
import pathlib
import subprocess

import pytest

JOB = """name: planned
data: {source: synthetic-digits, samples: 2000}
model:
  - dropout: {p: 0.2}
  - linear: {units: 64}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {epochs: 3, batch: 100, shards: 4}
optimizer: {sgd: {rate: 0.05, momentum: 0.9}}
"""


@pytest.fixture
def plan(program, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)

    def call(*options, status=0, cache="cache", job="job.yaml", text=None):
        environment = os.environ | {"COPPICE_CACHE": str(tmp_path / cache)}
        command = [program("coppice"), "plan", job, *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        assert status or not done.stderr
        return done

    call.folder = tmp_path
    return call


def time_of(done):
    return json.loads(done.stdout)["time"]


def test_prediction_fits_the_job(plan):
    result = json.loads(plan("--time", "--workers", "2", "--json").stdout)
    time = result["time"]
    assert result["step_ms"] == time["step_ms"] > 0
    assert (time["workers"], time["cached"]) == (2, False)
    assert time["samples_per_s"] == pytest.approx(1e5 / time["step_ms"])
    assert time["seconds"] == pytest.approx(result["steps"] * time["step_ms"] / 1000)
    assert 0 < time["compute_ms"] + time["update_ms"]
    assert sum(layer["ms"] for layer in time["layers"]) <= time["compute_ms"] * (1 + 1e-6)
    assert 1 <= time["useful_workers"] <= 4 and 1 <= time["useful_pool_workers"] <= 4  # no more than shards
    assert time["pool_step_ms"] > 0
    second = time["layers"][4]
    assert second["input_density"] == pytest.approx(0.25, abs=0.15)  # relu and dropout
    assert "input_density" not in time["layers"][2]
    assert sorted(p.name for p in plan.folder.iterdir()) == ["cache", "job.yaml"]


def test_trial_is_kept_in_the_cache(plan):
    first = time_of(plan("--time", "--json"))
    again = time_of(plan("--time", "--json"))
    assert again == first | {"cached": True}
    assert time_of(plan("--time", "--measure", "--json"))["cached"] is False
    assert time_of(plan("--time", "--set", "train.batch=64", "--json"))["cached"] is False


def test_damaged_cache_is_measured_again(plan):
    plan("--time", "--json")
    (file,) = [p for p in (plan.folder / "cache" / "step-times").iterdir() if p.is_file()]
    content = bytearray(file.read_bytes())
    content[8] ^= 1
    for damaged in (bytes(content), b"", content[:100]):
        file.write_bytes(damaged)
        assert time_of(plan("--time", "--json"))["cached"] is False
        assert time_of(plan("--time", "--json"))["cached"] is True


def test_cache_that_cannot_be_written_is_no_error(plan):
    pathlib.Path(plan.folder / "file").write_text("")
    assert time_of(plan("--time", "--json", cache="file/cache"))["cached"] is False


def test_job_on_standard_input_is_predicted(plan):
    assert time_of(plan("--time", "--json", job="-", text=JOB))["step_ms"] > 0


def test_plan_measures_only_if_asked(plan):
    assert "time" not in json.loads(plan("--json").stdout)
    assert not (plan.folder / "cache").exists() or not (plan.folder / "cache/step-times").exists()


def test_prediction_is_printed_as_tables(plan):
    text = plan("--time").stdout
    for words in ("time of a step", "useful workers of a pool", "X NOT 0", "1 linear"):
        assert words in text


def test_job_that_diverges_is_reported(plan):
    (plan.folder / "job.yaml").write_text(JOB.replace("  - relu\n", ""))
    done = plan("--time", "--set", "optimizer.sgd.rate=1e6", status=1)
    assert "cannot measure the job: training diverged" in done.stderr
