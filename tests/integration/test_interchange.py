"""The commands `coppice export` and `coppice import`: a coordinator's jobs, names of formats, unwritable files, full memory and full disks."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

# torch comes before safetensors: an export to m.py refuses to replace weights from another export.
FORMATS = {"torch": ["m.py", "m.safetensors"], "safetensors": ["m.safetensors"], "onnx": ["m.onnx"]}


@pytest.fixture
def trained(coppice, small, tmp_path):
    """A trained run folder; exports are written there."""
    coppice("run", small(10), "--out", tmp_path / "run", "--quiet")
    (tmp_path / "out").mkdir()
    return tmp_path / "run"


def test_coordinator_job_is_exported_like_a_run(cluster, coppice, small, tmp_path):
    pool = cluster("ipc")
    pool.worker("one")
    pool.client("submit", small(30), "--data", tmp_path, "--quiet")
    coppice("run", small(30), "--out", tmp_path / "run", "--quiet")
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    for name, files in FORMATS.items():
        printed = pool.client("export", 1, "--format", name, "-o", tmp_path / "there" / files[0], "--json")
        assert printed == coppice("export", tmp_path / "run", "--format", name, "-o", tmp_path / "here" / files[0], "--json") | {"output": str(tmp_path / "there" / files[0])}
        assert printed["format"] == name and printed["step"] == 30
    for file in ("m.onnx", "m.py"):
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()
    for name, tensor in load_file(tmp_path / "here/m.safetensors").items():
        assert np.array_equal(load_file(tmp_path / "there/m.safetensors")[name], tensor)
    assert "job 7" in pool.client("export", 7, "-o", tmp_path / "there/none.onnx", status=2).stderr
    assert not (tmp_path / "there/none.onnx").exists()


def test_file_extension_decides_the_export_format(coppice, trained, tmp_path):
    assert coppice("export", trained, "-o", "out/m.onnx", "--json")["format"] == "onnx"
    assert coppice("export", trained, "-o", "out/m.py", "--json")["format"] == "torch"
    assert coppice("export", trained, "-o", "out/m.bin", "--json")["format"] == "safetensors"
    assert (tmp_path / "out/m.bin").read_bytes() == (tmp_path / "out/m.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize("arguments, words", [
    (["--format", "onxx", "-o", "out/m"], '--format is "onxx": expected safetensors, onnx or torch; did you mean "onnx"?'),
    (["--format", "pickle", "-o", "out/m"], '--format is "pickle": expected safetensors, onnx or torch\n'),
    (["--format", "onnx"], "expected -o FILE"),
    (["--format", "torch", "-o", "out/m"], '-o is "out/m": expected a name that ends in .py'),
    (["--format", "torch", "-o", "out/.py"], '-o is "out/.py": expected a name that ends in .py'),
    (["-o", "nowhere/m.onnx"], "cannot write nowhere/m.onnx: No such file or directory"),
    (["-o", "nowhere/m.py"], "cannot write nowhere/m.safetensors: No such file or directory"),
    (["--format", "onnx", "-o", "out"], "cannot write out: it exists and is not a file"),
    (["--format", "onnx", "-o", "/dev/null"], "cannot write /dev/null: it exists and is not a file"),
])
def test_impossible_exports_are_refused(coppice, trained, tmp_path, arguments, words):
    assert words in coppice("export", trained, *arguments, status=2).stderr
    assert not list((tmp_path / "out").iterdir())


def test_export_without_a_model_is_refused(coppice, tmp_path):
    assert "nowhere" in coppice("export", "nowhere", "-o", "m.onnx", status=2).stderr
    (tmp_path / "text").write_text("no model")
    assert "text is not a safetensors file" in coppice("export", "text", "-o", "m.onnx", status=2).stderr
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.asan
@pytest.mark.parametrize("name", FORMATS)
def test_export_on_a_full_disk_leaves_no_file(coppice, trained, tmp_path, name):
    """Makes each write, sync and rename fail in turn, until a run has no more to fail."""
    out, written, failed = tmp_path / "out", [], 0
    while True:
        done = coppice("export", trained, "--format", name, "-o", out / FORMATS[name][0], status=None, COPPICE_FAIL_IO=failed + 1)
        written = sorted(path.name for path in out.iterdir())
        if done.returncode == 0:
            break
        assert done.returncode == 1 and ("No space left" in done.stderr), done.stderr
        assert not written
        failed += 1
    assert written == sorted(FORMATS[name]) and failed >= 4
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for number in range(1, failed):  # existing files stay complete
        coppice("export", trained, "--format", name, "-o", out / FORMATS[name][0], status=1, COPPICE_FAIL_IO=number)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.asan
@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_export_without_memory_is_reported(coppice, trained, tmp_path, name):
    """Makes every 7th allocation fail, one per run."""
    out, number = tmp_path / "out", 1
    while True:
        done = coppice("export", trained, "--format", name, "-o", out / FORMATS[name][0], status=None, COPPICE_FAIL_ALLOC=number)
        if done.returncode == 0:
            break
        assert done.returncode == 1 and "memory" in done.stderr, (number, done.stderr)
        assert not list(out.iterdir())
        number += 7
    assert number > 50


def test_weights_of_an_export_replace_no_other_file(coppice, trained, tmp_path):
    """The user did not choose the name of the .safetensors file that belongs to a .py file."""
    coppice("run", tmp_path / "run/job.yaml", "--data", tmp_path, "--set", "seed=9", "--out", tmp_path / "other", "--quiet")
    before = (trained / "model.safetensors").read_bytes()
    refused = coppice("export", tmp_path / "other", "-o", trained / "model.py", status=2)
    assert f"would overwrite {trained}/model.safetensors" in refused.stderr
    assert (trained / "model.safetensors").read_bytes() == before and not (trained / "model.py").exists()
    for source in (tmp_path / "other", trained):  # replaces an earlier export
        coppice("export", source, "-o", "out/m.py")
        assert (tmp_path / "out/m.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


# ---- import ----


@pytest.fixture
def weights(tmp_path):
    random = np.random.default_rng(3)
    shapes = {"1.weight": (37, 306), "1.bias": (37,), "4.weight": (5, 37), "4.bias": (5,)}
    save_file({name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.asan
def test_failed_import_leaves_no_file(coppice, small, weights, tmp_path):
    job, failed = small(10), 0
    before = sorted(path.name for path in tmp_path.iterdir())
    while True:
        done = coppice("import", weights, "--spec", job, "-o", "m.safetensors", "--out", "run", status=None, COPPICE_FAIL_IO=failed + 1)
        if done.returncode == 0:
            break
        assert done.returncode == 1, done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == before, (failed, done.stderr)
        failed += 1
    assert failed > 10
    assert (tmp_path / "run/job.yaml").exists() and (tmp_path / "run/checkpoints/latest").exists()


def test_import_into_an_existing_folder(coppice, small, weights, tmp_path):
    job = small(10)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes").write_text("mine")
    coppice("import", weights, "--spec", job, "--out", "run", status=1, COPPICE_FAIL_IO=2)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes"]
    coppice("import", weights, "--spec", job, "--out", "run")
    again = coppice("import", weights, "--spec", job, "-o", "m.safetensors", "--out", "run", status=2)
    assert "run already contains a run: choose another folder" in again.stderr
    assert not (tmp_path / "m.safetensors").exists() and (tmp_path / "run/checkpoints/latest").exists()
    (tmp_path / "m.safetensors").write_text("mine")
    coppice("import", weights, "--spec", job, "-o", "m.safetensors", "--out", "run", status=2)
    assert (tmp_path / "m.safetensors").read_text() == "mine", "the folder is checked before the file is written"


def test_import_replaces_no_foreign_job_file(coppice, small, weights, tmp_path):
    job = small(10)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/job.yaml").write_text("# mine\n")
    refused = coppice("import", weights, "--spec", job, "--out", "mine", status=2)
    assert "mine contains job.yaml, which was not written by a run" in refused.stderr
    assert (tmp_path / "mine/job.yaml").read_text() == "# mine\n" and len(list((tmp_path / "mine").iterdir())) == 1


def test_imported_weights_give_the_same_ensemble(coppice, small, trained, tmp_path):
    """Imported weights give the same evaluation and ensemble as weights trained here."""
    save_file(load_file(trained / "model.safetensors"), tmp_path / "elsewhere.safetensors")
    coppice("import", "elsewhere.safetensors", "--spec", small(10), "-o", "back.safetensors")
    for arguments in (["--ensemble", "3,7"], ["--average", "weight-scaling"], []):
        printed = [coppice("eval", model, "--data", tmp_path, *arguments, "--json") for model in (trained, "back.safetensors")]
        for one in printed:
            one.pop("seconds")
        assert printed[0] == printed[1] and printed[0]["digest"]
