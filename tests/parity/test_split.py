"""Which rows are for training and which are set aside (D1): coppice and the second implementation agree."""

import re

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file

JOB = """name: split
seed: 5
data: {data}
model: [linear: {{units: {units}}}]
loss: {loss}
train: {{steps: 1, batch: {batch}, shards: 1}}
optimizer: {{sgd: {{rate: 0.01}}}}
"""


def set_of(folder, counts, shuffled=False):
    """Writes an NPY data set whose sample i is [i / 1000, i], with labels sorted by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    if shuffled:
        labels = np.random.default_rng(2).permutation(labels)
    rows = np.arange(len(labels))
    np.save(folder / "x.npy", np.stack([rows / 1000, rows], axis=1).astype(np.float32))
    np.save(folder / "y.npy", labels.astype(np.int64))
    return labels


def rows_seen(coppice, folder, data, loss="cross_entropy", units=2):
    """The rows of the only batch, which is the whole training part, in order."""
    job = folder / "job.yaml"
    base = "source: npy, train: {images: x.npy, labels: y.npy}, normalize: none"
    job.write_text(JOB.format(data=f"{{{base}, {data}}}", loss=loss, units=units, batch=4096))
    coppice("run", job, "--out", folder / "run", "--quiet")
    coppice("replay", folder / "run", "--data", folder, "--step", 1, "--shard", 0, "-o", folder / "shard.safetensors")
    return load_file(folder / "shard.safetensors")["input"][:, 1].astype(int)


def seed_of(folder, labels):
    return portable1.split_seed(np.load(folder / "x.npy"), labels)


@pytest.mark.parametrize("counts, validation, samples, shuffled",
                         [((40, 40, 40), 30, 0, False), ((90, 7, 1, 33), 40, 0, False), ((90, 7, 1, 33), 25, 60, True), ((500, 400), 0, 77, True)])
def test_training_rows_match_the_second_implementation(coppice, tmp_path, counts, validation, samples, shuffled):
    labels = set_of(tmp_path, counts, shuffled)
    seen = rows_seen(coppice, tmp_path, f"validation: {validation}, samples: {samples}", units=len(counts))
    train, aside = portable1.split(seed_of(tmp_path, labels), labels, validation, samples)
    assert len(aside) == validation and len(train) == (samples or len(labels)) - validation
    assert seen.tolist() == train[portable1.order(5, 0, len(train))].tolist()
    assert set(labels[train]) == set(labels), "each class is trained on"


def test_draw_of_a_job_without_classes_is_not_stratified(coppice, tmp_path):
    labels = set_of(tmp_path, (80, 1))
    seen = rows_seen(coppice, tmp_path, "validation: 50, target: input", "mse")
    train, _ = portable1.split(seed_of(tmp_path, labels * 0), labels * 0, 50)
    assert seen.tolist() == train[portable1.order(5, 0, 31)].tolist()


def test_split_last_sets_the_last_rows_aside(coppice, tmp_path):
    set_of(tmp_path, (50, 50), True)
    seen = rows_seen(coppice, tmp_path, "validation: 20, samples: 90, split: last")
    assert sorted(seen) == list(range(70))


def test_every_job_on_the_same_data_has_the_same_validation_rows(coppice, tmp_path):
    set_of(tmp_path, (50, 50))
    first = rows_seen(coppice, tmp_path, "validation: 20")
    job = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(re.sub("seed: 5", "seed: 6", job))
    coppice("run", tmp_path / "job.yaml", "--out", tmp_path / "other", "--quiet")
    coppice("replay", tmp_path / "other", "--data", tmp_path, "--step", 1, "--shard", 0, "-o", tmp_path / "other.safetensors")
    second = load_file(tmp_path / "other.safetensors")["input"][:, 1].astype(int)
    assert sorted(first) == sorted(second) and first.tolist() != second.tolist()
