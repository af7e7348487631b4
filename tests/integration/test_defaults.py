"""Defaults of a job file: how the data are split, how values are scaled, and what is evaluated."""

import json

import hashlib
import struct

import numpy as np
import pytest
import yaml

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
    """defaults(command, data, *arguments): runs or plans a job on these data."""

    def do(command, data, *arguments, job=JOB, quiet=True, **options):
        path = tmp_path / "job.yaml"
        path.write_text(job.format(data=data))
        return coppice(command, path, *(["--quiet"] if command == "run" and quiet else []), *arguments, **options)

    return do


def sorted_csv(path, classes=3, each=20):
    """Writes a table, sorted by class, that a linear layer can separate."""
    random = np.random.default_rng(3)
    lines = [f"{c + 0.1 * random.random():.4f},{(c == 1) + 0.1 * random.random():.4f},{c}" for c in range(classes) for _ in range(each)]
    path.write_text("a,b,label\n" + "\n".join(lines) + "\n")


def test_pictures_sorted_by_class_are_all_learnt(defaults, tmp_path):
    from PIL import Image

    for name, colour in (("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (4, 4), tuple(max(0, v - 5 * i) for v in colour)).save(tmp_path / "pictures" / name / f"{i}.png")
    result = defaults("run", "{source: image-folder, train: pictures, validation: 8}", "--json")
    assert result["evaluated_on"] == "validation" and result["test_error"] == 0


def test_sorted_table_is_learnt_and_plan_shows_classes_of_each_part(defaults, tmp_path):
    sorted_csv(tmp_path / "sorted.csv")
    data = "{source: csv, train: sorted.csv, label: label, validation: 20, normalize: standard}"
    assert defaults("run", data, "--json")["test_error"] == 0
    parts = defaults("plan", data, "--json")["parts"]
    assert [(part["part"], [int(n) for n in part["per_class"]]) for part in parts] == [
        ("train", [13, 13, 14]), ("validation", [7, 7, 6]), ("test", [0, 0, 0])]
    text = defaults("plan", data).stdout
    assert [line.split() for line in text.splitlines()[-4:]] == [
        ["CLASS", "TRAINING", "VALIDATION", "TEST"], ["0", "13", "7", "0"], ["1", "13", "7", "0"], ["2", "14", "6", "0"]]


def test_class_without_training_samples_is_reported(defaults, tmp_path):
    sorted_csv(tmp_path / "sorted.csv")
    data = "{source: csv, train: sorted.csv, label: label, validation: %s}"
    error = defaults("run", data % "20, split: last", status=2).stderr
    assert "job.yaml:3:" in error and "class 2 has no training sample" in error
    assert "class 0 (20 of the training samples) would have no training sample" in defaults("run", data % 58, status=2).stderr
    assert defaults("run", data % 57, "--json")["steps"] == 20


def byte_tables(folder, largest=255, count=120, side=4):
    """Writes the same whole numbers as CSV, as f32 and as bytes; returns the values and labels."""
    random = np.random.default_rng(7)
    labels = np.arange(count) % 3
    patterns = random.integers(0, largest + 1, (3, side * side))
    x = (patterns[labels] * 0.8 + random.integers(0, largest // 5 + 1, (count, side * side))).astype(np.uint8)
    lines = [",".join(map(str, [*row, label])) for row, label in zip(x, labels)]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "y.npy", labels)
    for kind in ("u1", "f4", "f8"):
        np.save(folder / f"{kind}.npy", x.astype(kind))
    return x, labels


TABLES = ["{source: csv, train: x.csv%s}"] + [f"{{source: npy, train: {{images: {kind}.npy, labels: y.npy}}%s}}" for kind in ("u1", "f4", "f8")]


@pytest.mark.parametrize("more", [", validation: 30", ", validation: 30, normalize: unit", ", normalize: none", ", normalize: standard"])
def test_same_values_in_any_format_give_the_same_data_and_weights(defaults, tmp_path, more):
    byte_tables(tmp_path)
    digests, data = set(), set()
    for table in TABLES:
        digests.add(defaults("run", table % more, "--json", "--out", tmp_path / "run", "--overwrite")["digest"])
        data.add(yaml.safe_load((tmp_path / "run/job.yaml").read_text())["pinned"]["data_digest"])
    assert len(digests) == len(data) == 1


@pytest.mark.parametrize("more", [", validation: 30", ", samples: 70, validation: 20", ", validation: 30, split: last"])
def test_pictures_and_a_flat_table_of_them_give_the_same_weights(defaults, tmp_path, more):
    x, _ = byte_tables(tmp_path)
    np.save(tmp_path / "pictures.npy", x.reshape(-1, 4, 4))
    tables = [TABLES[0], "{source: npy, train: {images: pictures.npy, labels: y.npy}%s}"]
    results = [defaults("run", table % more, "--json", "--out", tmp_path / "run", "--overwrite") for table in tables]
    assert results[0]["digest"] == results[1]["digest"] and results[0]["test_loss"] == results[1]["test_loss"]


def test_range_of_values_decides_the_default_normalisation(defaults, tmp_path):
    def plan(table):
        return defaults("plan", table % ", validation: 30", "--json")

    byte_tables(tmp_path)
    for table in TABLES:
        planned = plan(table)
        assert planned["normalize"] == "unit" and planned["values"][1] > 200 and planned["inputs"][1] == planned["values"][1] / 255
    byte_tables(tmp_path, largest=16)  # small whole numbers must not be scaled like bytes: 16/255 would be close to 0
    for table in TABLES:
        planned = plan(table)
        assert planned["normalize"] == "standard" and planned["values"][1] <= 16 and -6 < planned["inputs"][0] < -0.5 < 0.5 < planned["inputs"][1] < 6
    x, _ = byte_tables(tmp_path)
    np.save(tmp_path / "f4.npy", x.astype("f4") * 1000 + 0.5)
    assert plan(TABLES[2])["normalize"] == "standard"
    text = defaults("plan", TABLES[2] % "")
    assert "normalize standard: the network sees -" in text.stdout and text.stderr == ""


def test_extreme_normalised_values_give_a_warning(defaults, tmp_path):
    byte_tables(tmp_path)
    for command in ("plan", "run"):
        error = defaults(command, TABLES[0] % ", normalize: none", *(["--workers", 1] if command == "run" else []), quiet=False).stderr
        assert "data.normalize: the network sees values from 3 to 253: " in error and "expected data.normalize: auto or standard" in error
        assert "sees values" not in defaults(command, TABLES[0] % "", quiet=False).stderr


def old_pack_digest(x, labels):
    """Digest of the pack that earlier versions made from a CSV file of whole numbers: with f32 values."""

    def padded(data):
        return data + bytes(-len(data) % 64)

    header = b"COPDATA1" + struct.pack("<II", 3, 0)
    for count in (len(x), 0):
        header += struct.pack("<8I", 2, 1, x.shape[1], 0, 0, count, 0, 0)
    return hashlib.sha256(padded(header) + padded(x.astype("<f4").tobytes()) + padded(labels.astype("<i4").tobytes())).hexdigest()


def test_job_pinned_to_whole_numbers_as_f32_keeps_its_data(defaults, coppice, tmp_path):
    x, labels = byte_tables(tmp_path)
    defaults("run", TABLES[0] % ", validation: 30, split: last, normalize: unit", "--out", tmp_path / "run")
    section = yaml.safe_load((tmp_path / "run/job.yaml").read_text())["pinned"]
    text = (tmp_path / "run/job.yaml").read_text().replace(section["data_digest"], old_pack_digest(x, labels))
    text = "".join(line for line in text.splitlines(keepends=True) if "split:" not in line).replace("sample_type: u8", "sample_type: f32")
    (tmp_path / "old.yaml").write_text(text)
    coppice("run", tmp_path / "old.yaml", "--out", tmp_path / "old", "--quiet")
    kept = yaml.safe_load((tmp_path / "old/job.yaml").read_text())
    assert kept["pinned"]["sample_type"] == "f32" and kept["pinned"]["data_digest"] == old_pack_digest(x, labels)
    assert kept["data"]["split"] == "last" and kept["data"]["normalize"] == "unit"


def test_model_accepts_the_same_values_in_either_type(defaults, coppice, tmp_path):
    byte_tables(tmp_path)
    defaults("run", TABLES[0] % "", "--out", tmp_path / "run")
    tables = {coppice("predict", tmp_path / "run", "--input", tmp_path / name).stdout for name in ("u1.npy", "f4.npy", "f8.npy")}
    assert len(tables) == 1 and "120 samples" in tables.pop()
    np.save(tmp_path / "f4.npy", np.full((2, 16), 0.5, "f4"))
    assert "element 0 is 0.5: the model takes bytes" in coppice("predict", tmp_path / "run", "--input", tmp_path / "f4.npy", status=2).stderr


def test_without_validation_no_weights_are_chosen_on_the_test_part(defaults, tmp_path):
    sorted_csv(tmp_path / "train.csv")
    sorted_csv(tmp_path / "test.csv", each=5)
    data = "{source: csv, train: train.csv, test: test.csv%s}"
    for more, best in (("", False), (", validation: 20", True)):
        result = defaults("run", data % more, "--json", "--out", tmp_path / "run", "--overwrite")
        assert result["evaluated_on"] == ("validation" if best else "test")
        assert (tmp_path / "run/checkpoints/best").exists() == best
        assert ("checkpoints/best" in defaults("plan", data % more).stdout) == best
    assert "there is no best checkpoint, because there are no validation samples" in defaults("plan", data % "").stdout


def test_job_without_test_and_validation_samples_trains_without_evaluation(defaults, cluster, tmp_path):
    sorted_csv(tmp_path / "train.csv")
    data = "{source: csv, train: train.csv}"
    result = defaults("run", data, "--json")
    assert result["state"] == "COMPLETED" and "test_error" not in result and "test_loss" not in result
    assert "without evaluation" in defaults("plan", data, "--json")["result"]
    pool = cluster("ipc")
    pool.worker("w")
    status = pool.client("submit", tmp_path / "job.yaml", "--data", tmp_path, "--json", "--quiet")
    assert status["state"] == "COMPLETED" and status["digest"] == result["digest"]
    assert "has no test samples" in defaults("run", data, "--set", "evaluate.on=test", status=2).stderr


AUTOENCODER = """name: auto
seed: 1
data: {data}
model: [linear: {{units: 8}}, relu, linear: {{units: 16}}]
loss: mse
train: {{epochs: 3, batch: 10, shards: 2}}
optimizer: {{adam: {{rate: 0.01}}}}
"""


def test_autoencoder_needs_no_labels(defaults, coppice, tmp_path):
    x, labels = byte_tables(tmp_path)
    np.save(tmp_path / "zero.npy", labels * 0)
    np.save(tmp_path / "real.npy", labels + 0.5)
    np.savez(tmp_path / "x.npz", images=x)
    (tmp_path / "plain.csv").write_text("\n".join(",".join(map(str, row)) for row in x) + "\n")
    (tmp_path / "named.csv").write_text(",".join(f"c{i}" for i in range(16)) + ",y\n" + "\n".join(",".join(map(str, [*row, 0.5])) for row in x) + "\n")
    sources = [f"npy, train: {{images: u1.npy{labels}}}" for labels in ("", ", labels: zero.npy", ", labels: y.npy", ", labels: real.npy")]
    sources += ["npy, train: x.npz", "csv, train: plain.csv", "csv, train: named.csv, label: y"]
    digests = {defaults("run", f"{{source: {source}, validation: 30, target: input}}", "--json", job=AUTOENCODER)["digest"]
               for source in sources}
    assert len(digests) == 1
    error = defaults("run", "{source: npy, train: {images: u1.npy}, validation: 30}", job=AUTOENCODER, status=2).stderr
    assert "data.train.labels is missing" in error


def test_autoencoder_predicts_on_its_training_files(defaults, coppice, tmp_path):
    """Labels are ignored, as in training, whatever their values. An extra column is refused."""
    x, labels = byte_tables(tmp_path)
    np.savez(tmp_path / "x.npz", images=x, labels=labels + 5)
    rows = [",".join(map(str, row)) for row in x]
    head = ",".join(f"c{i}" for i in range(16)) + ",y"
    (tmp_path / "plain.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "named.csv").write_text("\n".join([head, *(f"{row},red" for row in rows)]) + "\n")
    (tmp_path / "first.csv").write_text("\n".join(f"{i},{row}" for i, row in enumerate(rows)) + "\n")
    (tmp_path / "more.csv").write_text("\n".join(f"{row},7" for row in rows) + "\n")
    expected = None
    for source in ("csv, train: plain.csv", "csv, train: named.csv, label: y", "csv, train: first.csv, drop: ['1']", "npy, train: x.npz"):
        defaults("run", f"{{source: {source}, validation: 30, target: input}}", "--out", "ae", "--overwrite", job=AUTOENCODER)
        lines = coppice("predict", "ae", "--input", source.split()[2].strip(",")).stdout
        assert lines == (expected := expected or lines), source
        if "plain" in source:
            assert "more.csv:1: 17 fields: the model takes 16\n" in coppice("predict", "ae", "--input", "more.csv", status=2).stderr


def test_bce_warns_of_samples_outside_0_to_1(defaults, tmp_path):
    np.save(tmp_path / "real.npy", np.random.default_rng(1).normal(size=(60, 16)).astype("f4"))
    np.save(tmp_path / "fraction.npy", np.random.default_rng(1).random((60, 16)).astype("f4"))
    warning = "loss is bce, which needs samples from 0 to 1, but they range from -"
    for name, warned in (("real", True), ("fraction", False)):
        done = defaults("plan", f"{{source: npy, train: {{images: {name}.npy}}, validation: 10, target: input}}", "--set", "loss=bce", job=AUTOENCODER)
        assert (warning in done.stderr) == warned, done.stderr


def test_mse_on_real_targets_explains_what_mse_compares(defaults, tmp_path):
    (tmp_path / "real.csv").write_text("a,y\n" + "".join(f"{i},{i / 7:.3f}\n" for i in range(1, 30)))
    error = defaults("run", "{source: csv, train: real.csv, validation: 5}", job=AUTOENCODER, status=2).stderr
    assert "expected a label" in error and "mse compares with labels (1 for the class, 0 for the others) or with the samples" in error


ONE_LOGIT = """name: logit
seed: 1
data: {data}
model: [linear: {{units: 1}}]
loss: bce
train: {{epochs: 40, batch: 10, shards: 2}}
optimizer: {{adam: {{rate: 0.05}}}}
"""


def test_one_logit_separates_two_classes(defaults, coppice, cluster, tmp_path):
    sorted_csv(tmp_path / "two.csv", classes=2)
    data = "{source: csv, train: two.csv, test: two.csv}"
    result = defaults("run", data, "--json", "--out", tmp_path / "run", job=ONE_LOGIT)
    assert result["test_error"] == 0 and result["test_loss"] < 0.3
    assert coppice("eval", tmp_path / "run", "--json")["error"] == 0
    lines = (tmp_path / "two.csv").read_text().splitlines()
    (tmp_path / "back.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    for name, expected in (("two.csv", "0"), ("back.csv", "1")):
        table = [line.split() for line in coppice("predict", tmp_path / "run", "--input", tmp_path / name).stdout.splitlines()]
        assert table[0][:3] == ["SAMPLE", "CLASS", "LABEL"] and table[1][1] == table[1][2] == expected
    sorted_csv(tmp_path / "three.csv", classes=3)
    assert "has 1 outputs, expected 3: the data has 3 classes" in defaults("run", data.replace("two", "three"), job=ONE_LOGIT, status=2).stderr
    error = defaults("run", data, job=ONE_LOGIT.replace("bce", "cross_entropy"), status=2).stderr
    assert "has 1 outputs, expected 2, or 1 with loss: bce: the data has 2 classes" in error


@pytest.mark.parametrize("layer", ["avg_pool2d: {kernel: 2}", "max_pool2d: {kernel: 2}", "spatial_dropout: {p: 0.2}"])
def test_image_layers_may_come_first(defaults, tmp_path, layer):
    random = np.random.default_rng(1)
    np.savez(tmp_path / "x.npz", images=random.integers(0, 256, (60, 8, 8), dtype=np.uint8), labels=np.arange(60) % 3)
    job = JOB.replace("model:\n", f"model:\n  - {layer.replace('{', '{{').replace('}', '}}')}\n  - flatten\n").replace("epochs: 20", "epochs: 1")
    layers = defaults("plan", "{source: npy, train: x.npz, validation: 6}", "--json", job=job)["layers"]
    assert layers[0]["output"] == ("1 x 8 x 8" if "spatial" in layer else "1 x 4 x 4")
    assert defaults("run", "{source: npy, train: x.npz, validation: 6}", "--json", job=job)["steps"] == 6
    without = job.replace("  - flatten\n", "")
    assert "flatten" in defaults("plan", "{source: npy, train: x.npz, validation: 6}", job=without, status=2).stderr


@pytest.mark.parametrize("change, sentence", [
    ("train.epochs=2", "train.epochs is 2, was 1 (with a cosine schedule, the number of steps must stay the same)"),
    ("optimizer.adam.rate=0.5", "optimizer.adam.rate is 0.5, was 0.01"),
    ("seed=7", "seed is 7, was 1"),
    ("optimizer={sgd: {rate: 0.01}}", "optimizer is sgd, was adam"),
    ("model.0.linear.units=9", "model[0].linear.units is 9, was 3"),
    ("data.validation=7", "data.validation is 7, was 6"),
    ("data.split=last", "data.split is last, was stratified"),
])
def test_refused_resume_names_the_field_that_differs(defaults, tmp_path, change, sentence):
    sorted_csv(tmp_path / "t.csv", classes=3)
    job = JOB.replace("epochs: 20", "epochs: 1").replace("{{rate: 0.01}}", "{{rate: 0.01, schedule: cosine}}").replace(
        "{{units: 3}}", "{{units: 3}}\n  - linear: {{units: 3}}")
    data = "{source: csv, train: t.csv, validation: 6}"
    defaults("run", data, "--out", tmp_path / "run", job=job)
    error = defaults("run", data, "--out", tmp_path / "run", "--resume", "auto", "--set", change, job=job, status=2).stderr
    assert sentence in error


@pytest.fixture
def run_of_12_steps(defaults, tmp_path):
    """Makes a run folder with checkpoints of steps 6, 9 and 12; returns run(*arguments), which runs its job again."""
    sorted_csv(tmp_path / "t.csv", classes=3, each=10)
    job = JOB.replace("epochs: 20", "epochs: 4") + "checkpoint: {{every: 3}}\n"

    def run(*arguments, **options):
        return defaults("run", "{source: csv, train: t.csv}", "--out", tmp_path / "run", *arguments, job=job, **options)

    run()
    return run


def test_resume_with_fewer_epochs_reports_removed_checkpoints_in_one_line(run_of_12_steps, tmp_path):
    done = run_of_12_steps("--resume", "auto", "--set", "train.epochs=2")
    assert len(done.stderr.splitlines()) == 1 and "?" not in done.stderr
    assert (f"the job ends at step 6, but {tmp_path}/run/checkpoints has checkpoints up to step 12: "
            "continuing from step 6 and removing the later checkpoints") in done.stderr
    assert [p.name for p in sorted((tmp_path / "run/checkpoints").glob("step-*"))] == ["step-00000006"]


def test_each_damaged_checkpoint_is_one_log_line(run_of_12_steps, tmp_path):
    for step in (9, 12):
        (tmp_path / f"run/checkpoints/step-{step:08}/state.json").write_text("no")
    lines = run_of_12_steps("--resume", "auto").stderr.splitlines()
    assert len(lines) == 2 and not any("?" in line for line in lines)
    assert all(f"step-{step:08}/state.json" in line and "warn" in line for step, line in zip((12, 9), lines))


@pytest.mark.parametrize("part, count", [("test: {images: x.npy, labels: y.npy}", 8), ("validation: 4", 4)])
def test_evaluation_with_non_finite_values_names_its_samples(defaults, tmp_path, part, count):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(8, 2)).astype("f4") * np.float32(1e30))
    np.save(tmp_path / "y.npy", np.arange(8) % 2)
    data = f"{{source: npy, train: {{images: x.npy, labels: y.npy}}, {part}, normalize: none}}"
    error = defaults("run", data, "--set", "train={steps: 20, batch: 8, shards: 2}", job=JOB.replace("units: 3", "units: 2").replace(
        "adam: {{rate: 0.01}}", "sgd: {{rate: 0.001}}"), status=1).stderr
    assert f"the loss of the {part.split(':')[0]} part is not finite (samples 0 to {count - 1})" in error
