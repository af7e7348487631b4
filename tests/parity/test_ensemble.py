"""Compares `coppice eval --ensemble` with NumPy in float64, which draws the members' masks by the definition (D3) and computes the figures by their
formulas. The figures are the same for any number of threads. Also tests which input is refused."""

import os
import shutil
import subprocess

import numpy as np
import portable1
import pytest
from safetensors.numpy import load_file

SEED = 77
JOB = """name: ensemble
seed: 77
model:
  - dropout: {{p: 0.2, variant: {variant}}}
  - linear: {{units: 40}}
  - relu
  - dropout: {{p: 0.5, variant: {variant}, scope: {scope}}}
  - linear: {{units: 10}}
train: {{steps: 60, batch: 50}}
optimizer: {{sgd: {{rate: 0.1}}}}
"""


def kept(count, layer, member, units, p, scope):
    """The values that each sample keeps in a member: the masks of D3, with the member's number as step."""
    return portable1.kept(SEED, 0, count, layer, member, units, p, scope, portable1.ENSEMBLE)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def members(digits, w, count, variant, scope):
    """Probabilities (members, samples, classes)."""
    x = digits.inputs("test").astype(float)
    scale = (lambda p: 1 / (1 - p)) if variant == "inverted" else (lambda p: 1)
    for member in range(count):
        h = x * kept(len(x), 0, member, x.shape[1], 0.2, "sample") * scale(0.2)
        h = np.maximum(h @ w["1.weight"].T + w["1.bias"], 0)
        h = h * kept(len(x), 3, member, 40, 0.5, scope) * scale(0.5)
        yield softmax(h @ w["4.weight"].T + w["4.bias"])


def figures(p, votes, labels):
    """Computes the figures from the averaged probabilities `p` and the members' classes `votes` (members, samples)."""
    rows = np.arange(len(labels))
    wrong = (p.argmax(1) != labels).astype(float)
    nll = -np.log(p[rows, labels])
    brier = ((p - np.eye(p.shape[1])[labels]) ** 2).sum(1)
    pairs = [(votes[i] != votes[k]).astype(float) for i in range(len(votes)) for k in range(i)]
    disagreement = np.mean(pairs, axis=0) if pairs else np.zeros(len(labels))
    bins = np.minimum((p.max(1) * 15).astype(int), 14)
    ece = sum(abs((1 - wrong[bins == b]).sum() - p.max(1)[bins == b].sum()) for b in range(15)) / len(labels)
    printed = {"error": wrong, "nll": nll, "brier": brier, "disagreement": disagreement}
    return {**{k: v.mean() for k, v in printed.items()}, **{f"{k}_se": v.std(ddof=1) / np.sqrt(len(v)) for k, v in printed.items()}, "ece": ece}


@pytest.fixture
def trained(coppice, digits):
    def make(variant="inverted", scope="sample"):
        coppice("run", digits.job(JOB.format(variant=variant, scope=scope)), "--out", digits.folder / "run", "--quiet")
        coppice("export", digits.folder / "run", "-o", digits.folder / "m.safetensors")
        return {k: v.astype(float) for k, v in load_file(digits.folder / "m.safetensors").items()}

    return make


@pytest.mark.parametrize("variant, scope", [("inverted", "sample"), ("classic", "shard")])
@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_ensemble_figures_match_numpy(coppice, digits, trained, variant, scope, average):
    w = trained(variant, scope)
    all_p = np.array(list(members(digits, w, 9, variant, scope)))
    printed = coppice("eval", digits.folder / "run", "--data", digits.folder, "--ensemble", "9,1,4", "--average", average, "--json", "--quiet")
    assert [row["members"] for row in printed["members"]] == [1, 4, 9] and printed["samples"] == all_p.shape[1]
    for row in printed["members"]:
        p = all_p[: row["members"]]
        joint = p.mean(0) if average == "arithmetic" else softmax(np.log(p).mean(0))
        for name, value in figures(joint, p.argmax(2), digits.labels["test"]).items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (row["members"], name)
        assert row["ece_se"] > 0


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_separately_trained_models_are_averaged(coppice, digits, average):
    """Each model is one member, without dropout. NumPy computes the result from their exported weights."""
    x, each, runs = digits.inputs("test").astype(float), [], []
    for seed in (1, 2, 3):
        runs.append(digits.folder / f"run{seed}")
        coppice("run", digits.job(JOB.format(variant="classic", scope="sample")), "--set", f"seed={seed}", "--out", runs[-1], "--quiet")
        coppice("export", runs[-1], "-o", digits.folder / "m.safetensors")
        w = {k: v.astype(float) for k, v in load_file(digits.folder / "m.safetensors").items()}
        h = np.maximum(x * 0.8 @ w["1.weight"].T + w["1.bias"], 0)
        each.append(softmax(h * 0.5 @ w["4.weight"].T + w["4.bias"]))
    printed = coppice("eval", runs[0], "--members-from", *runs[1:], "--ensemble", "1,3", "--data", digits.folder, "--average", average, "--json", "--quiet")
    for row in printed["members"]:
        p = np.array(each[: row["members"]])
        joint = p.mean(0) if average == "arithmetic" else softmax(np.log(p).mean(0))
        for name, value in figures(joint, p.argmax(2), digits.labels["test"]).items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (row["members"], name)
    assert [m["digest"] for m in printed["models"]] == [coppice("digest", run, "--json")["digest"] for run in runs]


def test_weight_scaling_equals_plain_evaluation(coppice, digits, trained):
    trained("classic")
    plain = coppice("eval", digits.folder / "run", "--data", digits.folder, "--json")
    scaled = coppice("eval", digits.folder / "run", "--data", digits.folder, "--average", "weight-scaling", "--json", "--quiet")["members"][0]
    assert scaled["error"] == plain["error"] and scaled["nll"] == pytest.approx(plain["loss"], rel=1e-6)


def test_number_of_threads_does_not_change_the_figures(coppice, digits, trained):
    trained()
    printed = [coppice("eval", digits.folder / "run", "--data", digits.folder, "--ensemble", "3,8", "--workers", n, "--json", "--quiet") for n in (1, 2, 3)]
    for one in printed:
        one.pop("seconds")
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.parametrize("options, words", [
    (["--ensemble", "0"], "expected numbers of members from 1 to 100000"),
    (["--ensemble", "5,x"], "expected numbers of members"),
    (["--ensemble", "100001"], "expected numbers of members"),
    (["--ensemble", "5", "--average", "harmonic"], "expected arithmetic, geometric or weight-scaling"),
    (["--average", "geometric"], "needs --ensemble K"),
    (["--ensemble", "5", "--average", "weight-scaling"], "omit --ensemble"),
])
def test_invalid_ensemble_options_are_refused(digits, trained, options, words):
    trained()
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN"))
    done = subprocess.run([program, "eval", digits.folder / "run", "--data", digits.folder, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("model, words", [
    ("  - linear: {units: 132}\nloss: mse\n", "expected cross_entropy"),
    ("  - linear: {units: 10}\n", "no random layer"),
])
def test_models_without_an_ensemble_are_refused(coppice, digits, model, words):
    text = f"name: none\nseed: 1\nmodel:\n{model}train: {{steps: 3, batch: 50}}\noptimizer: {{sgd: {{rate: 0.1}}}}\n"
    path = digits.job(text)
    if "mse" in model:
        path.write_text(path.read_text().replace("source: idx\n", "source: idx\n  target: input\n"))
    coppice("run", path, "--out", digits.folder / "run", "--quiet")
    program = shutil.which("coppice", path=os.environ.get("COPPICE_BIN"))
    done = subprocess.run([program, "eval", digits.folder / "run", "--data", digits.folder, "--ensemble", "5", "--average", "geometric"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and words in done.stderr, done.stderr
