"""Commands on trained models refuse a model for other data, a damaged model, and an unwritable output: with the exact message, exit status 2,
nothing on standard output, and no file left behind."""

import random
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from integration_tools import write_idx

MISFIT = "the model takes samples of u8 (1, 17, 18) and 5 classes, but data set small has u8 (1, 4, 4) and 3 classes"


@pytest.fixture
def run(coppice, small, tmp_path):
    coppice("run", small(20), "--out", "run", "--quiet")
    return tmp_path / "run"


@pytest.fixture
def refused(coppice, tmp_path):
    """refused(message, command, ...): checks that the command fails with this message and does not change the folder."""

    def files():
        """All files, except those that SQLite makes for readers of a database."""
        return sorted(path for path in tmp_path.rglob("*") if not path.name.startswith("metrics.sqlite-"))

    def check(sentence, command, *arguments):
        before = files()
        done = coppice(command, *arguments, status=2)
        assert done.stderr == f"coppice {command}: {sentence}\n"
        assert done.stdout == ""
        assert files() == before

    return check


@pytest.fixture
def other(tmp_path):
    """A folder with a data set that has the same file names, but another shape."""
    folder, noise = tmp_path / "other", random.Random(1)
    folder.mkdir()
    for part, count in (("train", 30), ("test", 12)):
        write_idx(folder / f"{part}-images", (count, 4, 4), [noise.getrandbits(8) for _ in range(16 * count)])
        write_idx(folder / f"{part}-labels", (count,), [i % 3 for i in range(count)])
    return folder


def test_model_for_other_data_is_refused(coppice, refused, run, other, small):
    refused(MISFIT, "eval", run, "--data", other)
    refused(MISFIT, "eval", run, "--data", other, "--ensemble", 3)
    refused(MISFIT, "features", run, "--data", other, "-o", "f.png")
    done = coppice("replay", run, "--data", other, "--step", 3, "-o", "r.safetensors", status=2)
    assert re.fullmatch(r"coppice replay: the job is pinned to the data [0-9a-f]{16}\.\.\., but these are [0-9a-f]{16}\.\.\.\n", done.stderr)
    assert not (run.parent / "r.safetensors").exists()
    lines = small(20).read_text().splitlines()
    line, text = next((number, line) for number, line in enumerate(lines, start=1) if "units: 5" in line)
    refused(f"{small(20)}:{line}:{text.index('linear') + 1}: model[4] linear: the last layer has 5 outputs, expected 3: the data has 3 classes",
            "run", small(20), "--data", other, "--out", "new")


def test_model_for_samples_of_equal_size_but_other_type_is_refused(coppice, refused, tmp_path):
    """A sample of four bytes is as large as one float, but must be refused."""
    for folder, dtype, width in (("bytes", "u1", 4), ("floats", "f4", 1)):
        (tmp_path / folder).mkdir()
        for part in ("train", "test"):
            samples = (np.arange(24 * width).reshape(24, width) + (dtype == "f4") / 2).astype(dtype)
            np.savez(tmp_path / folder / f"{part}.npz", images=samples, labels=np.arange(24) % 2)
    (tmp_path / "job.yaml").write_text("""name: four
data: {source: npy, train: {path: train.npz, images: images, labels: labels}, test: {path: test.npz, images: images, labels: labels}}
model: [linear: {units: 2}]
train: {steps: 5, batch: 4, shards: 2}
optimizer: {sgd: {rate: 0.1}}
""")
    coppice("run", "job.yaml", "--data", "bytes", "--out", "run", "--quiet")
    sentence = "the model takes samples of u8 (4) and 2 classes, but data set four has f32 (1) and 2 classes"
    refused(sentence, "eval", "run", "--data", "floats")
    refused(sentence, "eval", "run", "--data", "floats", "--average", "weight-scaling")


def test_exchanged_folders_of_two_jobs_are_detected(cluster, small, tmp_path):
    """If a state folder mixes two backups, the coordinator does not return the weights of another job."""
    pool = cluster("ipc")
    pool.worker("w")
    for seed in (1, 2):
        pool.client("submit", small(20), "--data", tmp_path, "--set", f"seed={seed}", "--quiet")
    for command in (("export", "-o", "1.safetensors"), ("eval", "--average", "weight-scaling")):
        pool.client(command[0], 1, *command[1:])
    jobs = pool.state / "jobs"
    for source, target in (("1", "kept"), ("2", "1"), ("kept", "2")):
        (jobs / source).rename(jobs / target)
    for job in (1, 2):
        for command in (("export", "-o", "wrong.safetensors"), ("eval", "--average", "weight-scaling")):
            done = pool.client(command[0], job, *command[1:], status=2)
            assert "of another job: its model, training, seed or data differ" in done.stderr
    assert not (tmp_path / "wrong.safetensors").exists()


@pytest.mark.parametrize("command", [("digest",), ("eval",), ("eval", "--ensemble", 2), ("export", "-o", "m"), ("features", "-o", "f.png"), ("inspect",),
                                     ("replay", "--step", 2, "-o", "r")])
def test_nan_in_a_model_file_is_refused(refused, run, command, tmp_path):
    tensors = load_file(run / "model.safetensors")
    tensors["1.weight"][3, 4] = np.nan
    with safe_open(run / "model.safetensors", "numpy") as file:
        save_file(tensors, tmp_path / "nan.safetensors", metadata=file.metadata())
    refused("nan.safetensors: 1.weight contains a value that is not a number (at 922 of 11322): such weights have no digest",
            command[0], "nan.safetensors", *command[1:])


def test_incomplete_model_file_is_refused(refused, run, tmp_path):
    with safe_open(run / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    tensors = load_file(run / "model.safetensors")
    save_file(tensors, tmp_path / "alien.safetensors")
    refused("alien.safetensors contains no job: it was not written by coppice", "digest", "alien.safetensors")
    del tensors["4.bias"]
    save_file(tensors, tmp_path / "less.safetensors", metadata=metadata)
    refused("less.safetensors has no tensor 4.bias", "eval", "less.safetensors")
    refused("cannot open nowhere.safetensors: No such file or directory", "eval", "nowhere.safetensors")
    (tmp_path / "empty").mkdir()
    refused("empty contains neither model.safetensors nor checkpoints", "digest", "empty")


@pytest.mark.parametrize("command", [("export", "run"), ("plot", "run"), ("features", "run"), ("replay", "run", "--step", 2),
                                     ("inspect", "synthetic-digits"), ("import", "run/model.safetensors", "--spec", "small.yaml")])
def test_unwritable_output_is_refused(refused, run, command):
    refused("cannot write nowhere/x.png: No such file or directory", *command, "-o", "nowhere/x.png")
    refused("cannot write small.yaml/x.png: Not a directory", *command, "-o", "small.yaml/x.png")


def test_latest_and_best_work_as_models(coppice, small, tmp_path):
    run = tmp_path / "run"
    coppice("run", small(20), "--set", "data.validation=100", "--out", run, "--quiet")
    digest = coppice("digest", run).stdout
    for name in ("checkpoints/latest", "checkpoints/best", "checkpoints/step-00000020", "model.safetensors"):
        assert coppice("digest", run / name).stdout == digest
