"""What a job does where its file does not say: the parts of the data, the scale of the values, what is evaluated."""

import json

import numpy as np
import pytest
from PIL import Image

JOB = """name: defaults
seed: 1
data: {data}
model:
  - linear: {{units: 3}}
train: {{epochs: 20, batch: 10, shards: 2}}
optimizer: {{adam: {{rate: 0.01}}}}
"""


@pytest.fixture
def defaults(coppice, tmp_path):
    """defaults(command, data, *arguments): run or plan a job on these data."""

    def do(command, data, *arguments, job=JOB, **options):
        path = tmp_path / "job.yaml"
        path.write_text(job.format(data=data))
        return coppice(command, path, *(["--quiet"] if command == "run" else []), *arguments, **options)

    return do


def sorted_csv(path, classes=3, each=20):
    """A table that a linear layer separates, class after class."""
    random = np.random.default_rng(3)
    lines = [f"{c + 0.1 * random.random():.4f},{(c == 1) + 0.1 * random.random():.4f},{c}" for c in range(classes) for _ in range(each)]
    path.write_text("a,b,label\n" + "\n".join(lines) + "\n")


def test_pictures_that_go_class_after_class_are_all_learnt(defaults, tmp_path):
    for name, colour in (("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (4, 4), tuple(max(0, v - 5 * i) for v in colour)).save(tmp_path / "pictures" / name / f"{i}.png")
    result = defaults("run", "{source: image-folder, train: pictures, validation: 8}", "--json")
    assert result["evaluated_on"] == "validation" and result["test_error"] == 0


def test_sorted_table_is_learnt_and_plan_shows_the_classes_of_each_part(defaults, tmp_path):
    sorted_csv(tmp_path / "sorted.csv")
    data = "{source: csv, train: sorted.csv, label: label, validation: 20, normalize: standard}"
    assert defaults("run", data, "--json")["test_error"] == 0
    parts = defaults("plan", data, "--json")["parts"]
    assert [(part["part"], [int(n) for n in part["per_class"]]) for part in parts] == [
        ("train", [13, 13, 14]), ("validation", [7, 7, 6]), ("test", [0, 0, 0])]
    text = defaults("plan", data).stdout
    assert [line.split() for line in text.splitlines()[-4:]] == [
        ["CLASS", "TRAINING", "VALIDATION", "TEST"], ["0", "13", "7", "0"], ["1", "13", "7", "0"], ["2", "14", "6", "0"]]


def test_class_without_training_samples_is_named(defaults, tmp_path):
    sorted_csv(tmp_path / "sorted.csv")
    data = "{source: csv, train: sorted.csv, label: label, validation: %s}"
    error = defaults("run", data % "20, split: last", status=2).stderr
    assert "job.yaml:3:" in error and "class 2 has no training sample" in error
    assert "class 0 (20 of the training samples) would have no training sample" in defaults("run", data % 58, status=2).stderr
    assert defaults("run", data % 57, "--json")["steps"] == 20
