"""`coppice export --format onnx` and `--format torch`, for each kind of layer in random networks: ONNX's checker accepts the file, and ONNX Runtime and
PyTorch compute the same logits as coppice. With dropout switched on, their masks have the job's statistics."""

import ast
import subprocess
import sys

import numpy as np
import pytest
from exported import CLASSES, KINDS, Network, close, coppice_logits, onnx_session, torch_module
from needs import check_module, save_torch, torch

CONFIGURATIONS = 4


@pytest.fixture(scope="module")
def checked():
    """checked(path): runs ONNX's checker in a separate process, because Debian's ONNX and ONNX Runtime both register their operators in one."""
    check_module("onnx")
    code = """
import sys, onnx
for line in sys.stdin:
    try:
        onnx.checker.check_model(line.strip(), full_check=True)
        print("fine", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def check(path):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "fine\n", path

        yield check
        process.stdin.close()


@pytest.mark.parametrize("kind", KINDS)
def test_exported_models_compute_the_same_logits(coppice, program, checked, tmp_path, kind):
    for number in range(CONFIGURATIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        network = Network(number, kind, folder)
        assert kind in network.kinds
        coppice("run", network.job, "--out", folder / "run", "--workers", 1, "--quiet", "--json")
        coppice("export", folder / "run", "-o", folder / "model.onnx")
        coppice("export", folder / "run", "-o", folder / "model.py")
        checked(folder / "model.onnx")
        what, x = f"configuration {number}: {network.layers}", network.input()
        expected = coppice_logits(program, folder / "run/model.safetensors", network.samples)
        assert expected.shape == (40, CLASSES) and np.ptp(expected) > 0
        close(onnx_session(folder / "model.onnx").run(["logits"], {"input": x})[0], expected, "onnx, " + what)
        with torch.no_grad():
            close(torch_module(folder / "model.py").build()(torch.from_numpy(x)).numpy(), expected, "torch, " + what)


def test_every_layer_kind_is_exported(layer_kinds):
    assert set(KINDS) == set(layer_kinds)


# ---- dropout switched on ----

P = 0.3
SELU_LOWEST = 1.7580993408473766
UNITS = 72  # a flat tensor, or images of 6 x 3 x 4
# The mask layer stands between identity layers, because ONNX Runtime's optimizer treats a first layer differently.
FLAT = "{leaky_relu: {slope: 1}}, LAYER"
IMAGES = "{leaky_relu: {slope: 1}}, LAYER, {conv2d: {channels: 6, kernel: 1, bias: false}}, {flatten: {}}"
JOB = """name: bare
data: {{source: npy, train: {{images: x.npy, labels: y.npy}}, test: {{images: x.npy, labels: y.npy}}, normalize: none, layout: nchw}}
model: [{layers}, {{linear: {{units: 72, bias: false}}}}]
train: {{steps: 1}}
optimizer: {{sgd: {{rate: 0.1}}}}
"""


@pytest.fixture
def bare(coppice, tmp_path):
    """bare(layer, shape): exports the layer between identity layers; returns functions of samples and training mode, for ONNX and PyTorch."""

    def make(layer, shape=(UNITS,), weights=None, count=2):
        layers = (FLAT if len(shape) == 1 else IMAGES).replace("LAYER", layer)
        weights = {**(weights or {}), "2.weight": torch.eye(UNITS)} if len(shape) == 1 else {
            "2.weight": torch.eye(6).reshape(6, 6, 1, 1), "4.weight": torch.eye(UNITS)}
        random = np.random.default_rng(5)
        np.save(tmp_path / "x.npy", random.normal(size=(count, *shape)).astype(np.float32))
        np.save(tmp_path / "y.npy", np.full(count, UNITS - 1))
        (tmp_path / "job.yaml").write_text(JOB.format(layers=layers))
        save_torch(weights, tmp_path / "identity.safetensors")
        coppice("import", tmp_path / "identity.safetensors", "--spec", tmp_path / "job.yaml", "-o", tmp_path / "model.safetensors")
        coppice("export", tmp_path / "model.safetensors", "-o", tmp_path / "out.onnx")
        coppice("export", tmp_path / "model.safetensors", "-o", tmp_path / "out.py")
        session, module = onnx_session(tmp_path / "out.onnx"), torch_module(tmp_path / "out.py").build()

        def by_onnx(x, training):
            flags = {flag.name: np.array(training) for flag in session.get_overridable_initializers()}
            return session.run(None, {"input": x, **flags})[0]

        def by_torch(x, training):
            with torch.no_grad():
                return module.train(training)(torch.from_numpy(x)).numpy()

        return {"onnx": by_onnx, "torch": by_torch}

    return make


def samples(shape, count=600):
    x = np.random.default_rng(9).normal(size=(count, *shape)).astype(np.float32)
    return np.where(np.abs(x) < 0.01, np.float32(0.01), x)  # because results are divided by it


def share_is(found, expected, draws):
    """Checks a share of `draws` random draws, within 5 standard errors."""
    assert abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)


@pytest.mark.parametrize("variant", ["inverted", "classic"])
@pytest.mark.parametrize("scope", ["sample", "shard"])
@pytest.mark.parametrize("kind", ["dropout", "spatial_dropout"])
def test_masks_have_the_drop_rate_of_the_job(bare, kind, scope, variant):
    spatial = kind == "spatial_dropout"
    shape = (6, 3, 4) if spatial else (UNITS,)
    x = samples(shape)
    for name, run in bare(f"{{{kind}: {{p: {P}, scope: {scope}, variant: {variant}}}}}", shape).items():
        assert np.allclose(run(x, False), x.reshape(len(x), -1) * (1 - P if variant == "classic" else 1), rtol=1e-6), name
        draws, kept = 0, 0
        for _ in range(30 if scope == "shard" else 1):
            factor = run(x, True) / x.reshape(len(x), -1)
            scale = 1 if variant == "classic" else 1 / (1 - P)
            assert np.all((factor == 0) | (np.abs(factor - scale) <= 1e-5 * scale)), name
            mask = (factor != 0).reshape(len(x), *shape)
            if spatial:
                assert np.all(mask == mask[:, :, :1, :1]), name
                mask = mask[:, :, 0, 0]
            if scope == "shard":
                assert np.all(mask == mask[:1]), name
                mask = mask[:1]
            draws, kept = draws + mask.size, kept + mask.sum()
        share_is(kept / draws, 1 - P, draws)
        if scope == "sample":  # neighbouring samples are independent
            share_is((mask[1:] & mask[:-1]).mean(), (1 - P) ** 2, mask[1:].size / 2)


@pytest.mark.parametrize("scope", ["sample", "shard"])
def test_gaussian_noise_has_its_mean_and_variance(bare, scope):
    x = samples((UNITS,))
    for name, run in bare(f"{{gaussian_dropout: {{p: {P}, scope: {scope}}}}}").items():
        assert np.array_equal(run(x, False), x), name
        noise = np.concatenate([(run(x, True) / x)[:1] if scope == "shard" else run(x, True) / x for _ in range(100 if scope == "shard" else 1)])
        variance = P / (1 - P)
        assert abs(noise.mean() - 1) <= 5 * np.sqrt(variance / noise.size), name
        assert abs(noise.var() - variance) <= 5 * variance * np.sqrt(2 / noise.size), name
        if scope == "shard":
            factor = run(x, True) / x
            assert np.allclose(factor, factor[:1], rtol=1e-4), name


@pytest.mark.parametrize("scope", ["sample", "shard"])
def test_alpha_dropout_sets_the_lowest_value_and_rescales(bare, scope):
    x = samples((UNITS,))
    a = 1 / np.sqrt((1 - P) * (1 + P * SELU_LOWEST**2))
    for name, run in bare(f"{{alpha_dropout: {{p: {P}, scope: {scope}}}}}").items():
        assert np.array_equal(run(x, False), x), name
        draws, dropped = 0, 0
        for _ in range(30 if scope == "shard" else 1):
            y = run(x, True)
            low = np.abs(y - a * SELU_LOWEST * (P - 1)) <= 1e-5
            kept = np.abs(y - (a * x + a * SELU_LOWEST * P)) <= 1e-5
            assert np.all(low | kept), name
            low = low & ~kept
            if scope == "shard":
                assert np.all(low == low[:1]), name
                low = low[:1]
            draws, dropped = draws + low.size, dropped + low.sum()
        share_is(dropped / draws, P, draws)


@pytest.mark.parametrize("scope, variant, drop_bias", [("sample", "classic", "true"), ("shard", "inverted", "false"), ("sample", "inverted", "true")])
def test_dropconnect_drops_weights_in_pytorch(bare, scope, variant, drop_bias):
    """Each sample has one active unit, so an output is one weight (1) plus the bias (10). The ONNX file uses the mean in both modes."""
    weights = {"1.weight": torch.ones(UNITS, UNITS), "1.bias": torch.full((UNITS,), 10.0)}
    runs = bare(f"{{dropconnect: {{units: 72, p: {P}, inference: mean, scope: {scope}, variant: {variant}, drop_bias: {drop_bias}}}}}", weights=weights)
    x = np.concatenate([np.eye(UNITS, dtype=np.float32)] * 2)
    keep = 1 - P if variant == "classic" else 1
    mean = keep * x @ np.ones((UNITS, UNITS), np.float32) + 10 * (keep if drop_bias == "true" else 1)
    for name, training in (("onnx", False), ("onnx", True), ("torch", False)):
        assert np.allclose(runs[name](x, training), mean, rtol=1e-6), name
    scale = 1 if variant == "classic" else 1 / (1 - P)
    y = runs["torch"](x, True)
    ones = y / scale if drop_bias == "true" else (y - 10) / scale
    biases = ones > 5
    kept = ones - 10 * biases
    assert np.all((np.abs(kept) < 1e-4) | (np.abs(kept - 1) < 1e-4))
    kept = kept > 0.5
    assert np.array_equal(kept[:UNITS], kept[UNITS:]) == (scope == "shard")
    share_is(kept[:UNITS].mean(), 1 - P, UNITS**2)
    if drop_bias == "true":
        share_is(biases.mean(), 1 - P, biases.size)
    else:
        assert not biases.any()


# ---- the file ----


def test_dropconnect_moments_are_exported_as_the_mean(coppice, digits, program, tmp_path):
    job = """model: [{{linear: {{units: 20}}}}, {{dropconnect: {{units: 30, inference: {inference}}}}}, relu, {{linear: {{units: 10}}}}]
name: moments
train: {{steps: 3}}
optimizer: {{sgd: {{rate: 0.1}}}}
"""
    coppice("run", digits.job(job.format(inference="moments")), "--out", tmp_path / "moments", "--quiet")
    coppice("import", tmp_path / "moments/model.safetensors", "--spec", digits.job(job.format(inference="mean")), "-o", tmp_path / "mean.safetensors")
    x = digits.inputs("test").reshape(-1, 1, 12, 11)
    expected = coppice_logits(program, tmp_path / "mean.safetensors", digits.images["test"])
    for name in ("m.onnx", "m.py"):
        done = subprocess.run([program("coppice"), "export", tmp_path / "moments", "-o", tmp_path / name], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == "model[1] dropconnect: written as its mean (coppice itself evaluates this layer by inference: moments)\n"
    assert np.abs(coppice_logits(program, tmp_path / "moments/model.safetensors", digits.images["test"]) - expected).max() > 1e-3
    close(onnx_session(tmp_path / "m.onnx").run(None, {"input": x})[0], expected, "onnx")
    with torch.no_grad():
        close(torch_module(tmp_path / "m.py").build()(torch.from_numpy(x)).numpy(), expected, "torch")


def test_onnx_file_has_the_right_metadata(coppice, digits, tmp_path):
    job = "name: printed\nmodel: [{dropout: {p: 0.2}}, {linear: {units: 10}}]\ntrain: {steps: 3}\noptimizer: {sgd: {rate: 0.1}}\n"
    summary = coppice("run", digits.job(job), "--out", tmp_path / "run", "--json", "--quiet")
    printed = coppice("export", tmp_path / "run", "--format", "onnx", "-o", tmp_path / "m", "--json")
    assert printed == {"output": str(tmp_path / "m"), "format": "onnx", "digest": summary["digest"], "step": 3}
    session = onnx_session(tmp_path / "m")
    about = session.get_modelmeta()
    assert about.producer_name == "coppice" and about.graph_name == "printed"
    assert {key: about.custom_metadata_map[f"coppice.{key}"] for key in ("name", "digest", "step")} == {
        "name": "printed", "digest": summary["digest"], "step": "3"}
    assert "- dropout: {p: 0.2" in about.custom_metadata_map["coppice.job"]
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("input", ["N", 1, 12, 11], "tensor(float)")]
    assert [(i.name, i.shape, i.type) for i in session.get_outputs()] == [("logits", ["N", 10], "tensor(float)")]
    assert [(i.name, i.shape, i.type) for i in session.get_overridable_initializers()] == [("training_mode", [], "tensor(bool)")]
    first = (tmp_path / "m").read_bytes()
    coppice("export", tmp_path / "run", "--format", "onnx", "-o", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == first, "the same bytes again"


def test_state_of_the_torch_model_can_be_imported(coppice, digits, tmp_path):
    """The model's state_dict has the job's names, so coppice can import weights that PyTorch has trained further."""
    job = digits.job("""name: there-and-back
model: [{maxout: {units: 12, pieces: 2}}, {alpha_dropout: {p: 0.1, scope: shard}}, {dropconnect: {units: 9, inference: mean}}, {linear: {units: 10}}]
train: {steps: 3}
optimizer: {sgd: {rate: 0.1}}
""")
    job.write_text(job.read_text().replace("source: idx\n", "source: idx\n  normalize: standard\n"))
    summary = coppice("run", job, "--out", tmp_path / "run", "--json", "--quiet")
    coppice("export", tmp_path / "run", "-o", tmp_path / "m.py")
    model = torch_module(tmp_path / "m.py").build()
    save_torch(model.state_dict(), tmp_path / "back.safetensors")
    assert coppice("import", tmp_path / "back.safetensors", "--spec", job, "-o", tmp_path / "same.safetensors", "--json")["digest"] == summary["digest"]
    x, y = torch.from_numpy(digits.inputs("train").reshape(-1, 1, 12, 11)), torch.from_numpy(digits.labels["train"])
    optimizer = torch.optim.SGD(model.train().parameters(), 0.05)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    save_torch(model.state_dict(), tmp_path / "back.safetensors")
    coppice("import", tmp_path / "back.safetensors", "--spec", job, "-o", tmp_path / "tuned.safetensors")
    before = coppice("eval", tmp_path / "run", "--data", digits.folder, "--json")
    after = coppice("eval", tmp_path / "tuned.safetensors", "--data", digits.folder, "--json")
    assert after["loss"] < before["loss"]


NAMES = ['\\"\\"\\"; import os; os.abort() #', "a\\\\", "\\n\\r\\timport os", "\\u2028os.abort()", "\\U0001F332 \\u00e9", "' + str(1/0) + '", "{}%s%d"]


@pytest.mark.parametrize("name", NAMES)
def test_job_name_never_becomes_code(coppice, digits, tmp_path, name):
    job = f'name: "{name}"\nmodel: [{{linear: {{units: 10}}}}]\ntrain: {{steps: 1}}\noptimizer: {{sgd: {{rate: 0.1}}}}\n'
    coppice("run", digits.job(job), "--out", tmp_path / "run", "--quiet")
    coppice("export", tmp_path / "run", "-o", tmp_path / "m.py")
    text = (tmp_path / "m.py").read_bytes()
    text.decode("ascii")
    kinds = [type(part).__name__ for part in ast.parse(text).body]
    assert kinds == ["Expr", "Import", "Import", "Import", "ImportFrom", "ImportFrom", "Assign", "Assign", "Assign", "FunctionDef", "If"]
    assert torch_module(tmp_path / "m.py").JOB == yaml_string(name)


def yaml_string(text):
    """The value of a double-quoted YAML string."""
    return ast.literal_eval(f'"{text}"')
