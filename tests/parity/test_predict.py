"""Compares `coppice predict` with NumPy in float64, which computes probabilities, entropy, mutual information and variation ratio by their
formulas, and draws the members' masks by the definition (D3). Every format with the same samples gives the same result; models without classes
have means and deviations; samples are normalised by the job's own statistics; and the output has the same bytes for any number of threads."""

import json
import subprocess

import numpy as np
import portable1
import pytest
from PIL import Image
from safetensors.numpy import load_file
from test_ensemble import JOB, SEED, members

NOT_THE_SAME_ORDER = 1e-5  # relative error of probabilities, because sums of f32 products have another order
FEW_BITS = 2e-6  # absolute error of entropies


@pytest.fixture
def predict(program):
    """predict(model, input, *options): runs `coppice predict`; returns its lines of JSON."""

    def call(model, source, *options, stdin=None):
        command = [program("coppice"), "predict", model, "--input", source, "--json", "--quiet", *options]
        done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.decode().splitlines()]

    return call


@pytest.fixture
def trained(coppice, digits):
    """trained(text): trains the job `text` on the digits, in the folder `run`; returns its weights in f64."""

    def make(text, source=None):
        path = digits.job(text)
        if source:
            path.write_text(path.read_text().replace("source: idx\n", f"source: idx\n{source}"))
        coppice("run", path, "--out", digits.folder / "run", "--quiet")
        return {k: v.astype(float) for k, v in load_file(digits.folder / "run/model.safetensors").items()}

    return make


def entropy(p):
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def column(lines, name):
    return np.array([line[name] for line in lines])


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def whole(x, w):
    """The outputs of JOB's network in eval mode, with inverted dropout."""
    return np.maximum(x @ w["1.weight"].T + w["1.bias"], 0) @ w["4.weight"].T + w["4.bias"]


# ---- classes ----


def test_single_network_predicts_its_softmax(digits, trained, predict):
    w = trained(JOB.format(variant="inverted", scope="sample"))
    lines = predict(digits.folder / "run", digits.folder / "test-images.gz")
    p = softmax(whole(digits.inputs("test").astype(float), w))
    assert [line["sample"] for line in lines] == list(range(len(p)))
    np.testing.assert_allclose(column(lines, "probabilities"), p, rtol=NOT_THE_SAME_ORDER)
    np.testing.assert_allclose(column(lines, "entropy"), entropy(p), atol=FEW_BITS)
    assert (column(lines, "class") == p.argmax(1)).all()
    assert not {"mutual_information", "variation_ratio", "label", "name"} & set(lines[0])


@pytest.mark.parametrize("variant, scope", [("inverted", "sample"), ("classic", "shard")])
def test_uncertainty_measures_the_disagreement_of_members(digits, trained, predict, variant, scope):
    count = 11
    w = trained(JOB.format(variant=variant, scope=scope))
    lines = predict(digits.folder / "run", digits.folder / "test-images.gz", "--ensemble", count)
    each = np.array(list(members(digits, w, count, variant, scope)))
    p = each.mean(0)
    np.testing.assert_allclose(column(lines, "probabilities"), p, rtol=NOT_THE_SAME_ORDER)
    np.testing.assert_allclose(column(lines, "entropy"), entropy(p), atol=FEW_BITS)
    information = entropy(p) - entropy(each).mean(0)
    np.testing.assert_allclose(column(lines, "mutual_information"), information, atol=FEW_BITS)
    assert information.max() > 0.05, "the members do differ"
    votes = np.array([np.bincount(of, minlength=10).max() for of in each.argmax(2).T])
    np.testing.assert_allclose(column(lines, "variation_ratio"), 1 - votes / count, atol=1e-12)
    assert (column(lines, "class") == p.argmax(1)).all()


def test_prediction_figures_equal_those_of_the_evaluation(coppice, digits, trained, predict):
    trained(JOB.format(variant="inverted", scope="sample"))
    lines = predict(digits.folder / "run", digits.folder / "test-images.gz", "--ensemble", 7)
    printed = coppice("eval", digits.folder / "run", "--data", digits.folder, "--ensemble", "7", "--json", "--quiet")["members"][0]
    labels = digits.labels["test"]
    assert np.mean(column(lines, "class") != labels) == pytest.approx(printed["error"], abs=1e-12)
    own = column(lines, "probabilities")[np.arange(len(labels)), labels]
    assert -np.log(own).mean() == pytest.approx(printed["nll"], rel=1e-9)


def test_number_of_threads_does_not_change_the_output(digits, trained, predict):
    trained(JOB.format(variant="inverted", scope="shard"))
    printed = [predict(digits.folder / "run", digits.folder / "test-images.gz", "--ensemble", 5, "--workers", n) for n in (1, 2, 7)]
    assert printed[0] == printed[1] == printed[2]


# ---- formats ----


def test_all_formats_give_the_same_predictions(digits, trained, predict):
    trained(JOB.format(variant="inverted", scope="sample"))
    x, y, folder = digits.images["test"][:9], digits.labels["test"][:9], digits.folder
    wanted = predict(folder / "run", folder / "test-images.gz", "--ensemble", 3)[:9]
    np.save(folder / "a.npy", x)
    np.save(folder / "b.npy", x[:, None])
    np.savez(folder / "c.npz", x)
    np.savez_compressed(folder / "d.npz", images=x, labels=y)
    np.savetxt(folder / "e.csv", x.reshape(9, -1), fmt="%d", delimiter=",")
    rows = np.column_stack([x.reshape(9, -1), y])
    np.savetxt(folder / "f.csv", rows, fmt="%d", delimiter=",", comments="", header=",".join(f"p{i}" for i in range(132)) + ",label")
    for name, labelled in (("a.npy", 0), ("b.npy", 0), ("c.npz", 0), ("d.npz", 1), ("e.csv", 0), ("f.csv", 1)):
        lines = predict(folder / "run", folder / name, "--ensemble", 3)
        assert [line.pop("label", None) for line in lines] == (list(y) if labelled else [None] * 9), name
        assert lines == wanted, name
        assert predict(folder / "run", "-", "--ensemble", 3, stdin=(folder / name).read_bytes())[0]["entropy"] == wanted[0]["entropy"]
    (folder / "pictures").mkdir()
    for i in range(9):
        Image.fromarray(x[i]).save(folder / f"pictures/{i}.png")
    lines = predict(folder / "run", folder / "pictures", "--ensemble", 3)
    assert [line.pop("name") for line in lines] == [f"{i}.png" for i in range(9)]
    assert lines == wanted
    one = predict(folder / "run", "-", "--ensemble", 3, stdin=(folder / "pictures/0.png").read_bytes())
    assert one == wanted[:1]


def test_colour_is_read_in_planes_and_jpeg_as_decoded(coppice, predict, tmp_path):
    random = np.random.RandomState(3)
    for part, count in (("train", 40), ("test", 8)):
        for i in range(count):
            place = tmp_path / part / f"class-{i % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.randint(0, 256, (5, 7, 3)).astype(np.uint8)).save(place / f"{i}.png")
    (tmp_path / "job.yaml").write_text(
        "name: colour\ndata: {source: image-folder, train: train, test: test, normalize: standard}\nmodel:\n  - linear: {units: 2}\n"
        "train: {steps: 9, batch: 8}\noptimizer: {sgd: {rate: 0.1}}\n"
    )
    coppice("run", tmp_path / "job.yaml", "--out", tmp_path / "run", "--quiet")
    w = load_file(tmp_path / "run/model.safetensors")
    pictures = [np.array(Image.open(path), float) for path in sorted(tmp_path.glob("train/*/*.png"))]
    mean, std = (f(np.array(pictures) / 255, (0, 1, 2)) for f in (np.mean, np.std))
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        picture = Image.fromarray(random.randint(0, 256, (5, 7, 3)).astype(np.uint8))
        picture.save(tmp_path / "in" / name)
        x = ((np.array(Image.open(tmp_path / "in" / name), float) / 255 - mean) / std).transpose(2, 0, 1).reshape(1, -1)
        lines = predict(tmp_path / "run", tmp_path / "in" / name)
        p = softmax(x @ w["0.weight"].T.astype(float) + w["0.bias"])
        np.testing.assert_allclose(column(lines, "probabilities"), p, rtol=NOT_THE_SAME_ORDER)
    assert [line["name"] for line in predict(tmp_path / "run", tmp_path / "in")] == ["a.png", "b.jpg"]


def test_input_is_normalised_by_the_job_statistics(coppice, predict, tmp_path):
    random = np.random.RandomState(8)
    x = random.normal((100, -3), (20, 0.1), (60, 2)).astype(np.float32)
    y = (x[:, 0] > 100).astype(int)
    np.savetxt(tmp_path / "train.csv", np.column_stack([x, y]), fmt=["%.9g", "%.9g", "%d"], delimiter=",", comments="", header="u,v,kind")
    (tmp_path / "job.yaml").write_text(
        "name: flat\ndata: {source: csv, train: train.csv, label: kind, validation: 10, split: last, normalize: standard}\nmodel:\n  - linear: {units: 2}\n"
        "train: {steps: 20, batch: 10}\noptimizer: {sgd: {rate: 0.5}}\n"
    )
    coppice("run", tmp_path / "job.yaml", "--out", tmp_path / "run", "--quiet")
    w = load_file(tmp_path / "run/model.safetensors")
    new = random.normal((100, -3), (20, 0.1), (5, 2)).astype(np.float32)  # with another mean than the training set
    np.savetxt(tmp_path / "new.csv", new, fmt="%.9g", delimiter=",")
    train = x[:50].astype(float)
    p = softmax((new - train.mean(0)) / train.std(0) @ w["0.weight"].T.astype(float) + w["0.bias"])
    lines = predict(tmp_path / "run", tmp_path / "new.csv")
    np.testing.assert_allclose(column(lines, "probabilities"), p, rtol=1e-4)
    np.save(tmp_path / "new.npy", new)
    assert predict(tmp_path / "run", tmp_path / "new.npy") == lines


# ---- outputs ----

AUTOENCODER = """name: auto
seed: 77
model:
  - linear: {{units: 30}}
  - relu
  - dropout: {{p: 0.5}}
  - linear: {{units: {outputs}}}
loss: {loss}
train: {{steps: 40, batch: 50}}
optimizer: {{adam: {{rate: 0.01}}}}
"""


@pytest.mark.parametrize("loss, target", [("mse", "input"), ("bce", "input"), ("mse", "label"), ("bce", "label")])
def test_outputs_without_classes_have_mean_and_deviation(digits, trained, predict, loss, target):
    count, outputs = 6, 132 if target == "input" else 10
    w = trained(AUTOENCODER.format(loss=loss, outputs=outputs), f"  target: {target}\n")
    lines = predict(digits.folder / "run", digits.folder / "test-images.gz", "--ensemble", count)
    x = digits.inputs("test").astype(float)
    h = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0)
    z = []
    for m in range(count):
        kept = portable1.kept(SEED, 0, len(x), 2, m, 30, 0.5, "sample", portable1.ENSEMBLE)
        z.append(h * kept * 2 @ w["3.weight"].T + w["3.bias"])
    z = np.array(z)
    z = 1 / (1 + np.exp(-z)) if loss == "bce" else z
    np.testing.assert_allclose(column(lines, "outputs"), z.mean(0), atol=1e-5)
    np.testing.assert_allclose(column(lines, "deviations"), z.std(0, ddof=1), atol=1e-5)
    np.testing.assert_allclose(column(lines, "spread"), np.sqrt(z.var(0, ddof=1).mean(1)), atol=1e-5)
    assert ("class" in lines[0]) == (target == "label") and "entropy" not in lines[0]
    if target == "label":
        assert (column(lines, "class") == z.mean(0).argmax(1)).all()
    alone = predict(digits.folder / "run", digits.folder / "test-images.gz")
    z = h @ w["3.weight"].T + w["3.bias"]
    np.testing.assert_allclose(column(alone, "outputs"), 1 / (1 + np.exp(-z)) if loss == "bce" else z, atol=1e-5)
    assert alone[0]["deviations"] == [] and "spread" not in alone[0]
