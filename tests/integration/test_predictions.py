"""`coppice predict`: its table, the sheet of the least certain samples, a coordinator's jobs, and exact errors that leave nothing behind.
tests/parity/test_predict.py checks the figures."""

import io
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from integration_tools import write_idx


@pytest.fixture
def run(coppice, small, tmp_path):
    """A trained run folder, `r`, for samples of 17 x 18 bytes."""
    coppice("run", small(steps=40), "--workers", 1, "--out", tmp_path / "r", "--quiet")
    return "r"


def images(folder, count=130):
    return np.frombuffer((folder / "test-images").read_bytes(), np.uint8, offset=16).reshape(-1, 17, 18)[:count]


def lines_of(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def predict(program, folder, *arguments, stdin=None):
    """Returns the whole output, even with --json."""
    command = [program("coppice"), "predict", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, input=stdin, capture_output=True, timeout=120, check=False)


# ---- the table ----


def test_prediction_table_shows_the_first_samples(coppice, run):
    done = coppice("predict", run, "--input", "test-images", "--limit", 3)
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["SAMPLE", "CLASS", "PROBABILITIES", "ENTROPY"] and [row.split()[0] for row in rows[1:4]] == ["0", "1", "2"]
    assert "130 samples, showing the first 3 (--limit 0: all); entropy in nats" in done.stdout
    done = coppice("predict", run, "--input", "test-images", "--limit", 0, "--ensemble", 4)
    assert len(done.stdout.splitlines()) == 133 and "4 members" in done.stdout
    assert all(word in done.stdout for word in ("MUTUAL INFORMATION", "VARIATION RATIO"))


def test_input_with_labels_gets_an_error_rate(program, coppice, run, tmp_path):
    x = images(tmp_path, 20)
    labels = [line["class"] for line in lines_of(predict(program, tmp_path, run, "--input", "test-images", "--json"))][:20]
    labels[3] = (labels[3] + 1) % 5
    np.savez(tmp_path / "x.npz", images=x, labels=labels)
    done = coppice("predict", run, "--input", "x.npz")
    assert "LABEL" in done.stdout and "error 5.00 %" in done.stdout


def test_help_and_completion_include_predict(coppice):
    text = coppice("predict", "--help").stdout
    for word in ("--input", "--ensemble", "--top-uncertain", "--limit", "--json", "coppice predict runs/"):
        assert word in text
    script = coppice("completion").stdout
    line = next(line for line in script.splitlines() if line.strip().startswith("predict)"))
    assert "--top-uncertain" in line and "--input" in line


def test_progress_is_shown_after_two_seconds(program, coppice, processes, run, tmp_path):
    command = [program("coppice"), "predict", run, "--input", "test-images", "--ensemble", "100000", "--workers", "1"]
    assert "% predict" in processes(*command, cwd=tmp_path, stderr=subprocess.PIPE).stderr.readline()
    assert coppice("predict", run, "--input", "test-images").stderr == "", "but not before"


# ---- the sheet ----


def test_sheet_shows_the_least_certain_samples_in_order(program, coppice, run, tmp_path):
    printed = lines_of(predict(program, tmp_path, run, "--input", "test-images", "--ensemble", 9, "--json"))
    order = sorted(range(130), key=lambda i: (-printed[i]["entropy"], i))
    done = coppice("predict", run, "--input", "test-images", "--ensemble", 9, "--top-uncertain", 11, "-o", "sheet.png")
    assert [int(row.split()[0]) for row in done.stdout.splitlines()[1:12]] == order[:11]
    assert "showing the 11 most uncertain" in done.stdout and "sheet.png" in done.stdout
    sheet = np.array(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert (sheet == sheet[..., :1]).all(), "greys alone, for any eye and any printer"
    zoom, margin, cell = 8, 12, 170 + 12  # the layout of the sheet, in half pixels
    top = margin + 2 * 16
    for place in range(8):
        x, y = 2 * (margin + place * cell) + zoom, 2 * top + zoom
        drawn = sheet[y : y + 17 * 2 * zoom : 2 * zoom, x : x + 18 * 2 * zoom : 2 * zoom, 0]
        assert (drawn == 255 - images(tmp_path)[order[place]]).all(), place


def test_sheet_with_fewer_samples_than_requested(coppice, run, tmp_path):
    np.save(tmp_path / "x.npy", images(tmp_path, 2))
    done = coppice("predict", run, "--input", "x.npy", "--top-uncertain", 50, "-o", "sheet.png")
    assert "showing the 2 most uncertain" in done.stdout
    assert Image.open(tmp_path / "sheet.png").width < 800


AUTOENCODER = "\n".join([
    "name: auto", "data: {source: idx, target: input, train: {images: train-images, labels: train-labels},",
    "  test: {images: test-images, labels: test-labels}}", "model:", "  - linear: {units: 20}", "  - dropout", "  - linear: {units: 306}",
    "loss: bce", "train: {steps: 5}", "optimizer: {sgd: {rate: 0.1}}", ""])


def test_uncertainty_without_classes_needs_an_ensemble(program, coppice, small, tmp_path):
    small()
    (tmp_path / "auto.yaml").write_text(AUTOENCODER)
    coppice("run", "auto.yaml", "--out", "r", "--quiet")
    done = coppice("predict", "r", "--input", "test-images", "--top-uncertain", 3, "-o", "sheet.png", status=2)
    assert "also specify --ensemble K" in done.stderr and not (tmp_path / "sheet.png").exists()
    coppice("predict", "r", "--input", "test-images", "--top-uncertain", 3, "--ensemble", 4, "-o", "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    printed = lines_of(predict(program, tmp_path, "r", "--input", "test-images", "--ensemble", 4, "--json"))
    table = coppice("predict", "r", "--input", "test-images", "--top-uncertain", 3, "--ensemble", 4, "-o", "sheet.png").stdout
    assert [int(row.split()[0]) for row in table.splitlines()[1:4]] == sorted(range(130), key=lambda i: -printed[i]["spread"])[:3]
    assert "+-" in table and "SPREAD" in table and "CLASS" not in table


# ---- sources of a model ----


def test_run_folder_checkpoint_and_file_give_the_same_predictions(program, coppice, run, tmp_path):
    coppice("export", run, "-o", "m.safetensors")
    step = (tmp_path / "r/checkpoints/latest").read_text().strip()
    printed = [predict(program, tmp_path, model, "--input", "test-images", "--json").stdout
            for model in ("r", f"r/checkpoints/{step}", "m.safetensors")]
    assert printed[0] and printed[0] == printed[1] == printed[2]


def test_coordinator_job_gives_the_same_predictions(cluster, small, program):
    pool = cluster("ipc")
    pool.worker("w")
    pool.client("submit", small(steps=40), "--data", ".", "--quiet")
    pool.client("export", 1, "-o", "m.safetensors")
    wanted = predict(program, pool.folder, "m.safetensors", "--input", "test-images", "--ensemble", 3, "--json").stdout
    done = subprocess.run([program("coppice"), "predict", "1", "--input", "test-images", "--ensemble", "3", "--json"],
                          capture_output=True, timeout=60, check=True, cwd=pool.folder, env=pool.environment())
    assert done.stdout and done.stdout == wanted
    assert "job 7" in pool.client("predict", 7, "--input", "test-images", status=2).stderr


# ---- errors ----


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


BAD = {
    "corrupt PNG": ("x.png", lambda x: png(x[0])[:-30], "x.png is a damaged PNG file: "),
    "size": ("x.png", lambda x: png(x[0][:, :9]), "x.png has 9 x 17 pixels in grey, of 1 channel: the model takes 18 x 17 pixels in grey, of 1 channel"),
    "colour": ("x.png", lambda x: png(np.stack([x[0]] * 3, 2)), "x.png has 18 x 17 pixels in colour, of 3 channels: the model takes"),
    "ragged row": ("x.csv", lambda x: b"1," * 305 + b"1\n1,2\n", "x.csv:2: 2 fields: expected 306, as in the first line"),
    "columns": ("x.csv", lambda x: b"1,2,3\n", "x.csv:1: 3 fields: the model takes 306, or 307 with a label"),
    "number": ("x.csv", lambda x: b"1," * 305 + b"1\n" + b"1," * 305 + b"x\n", 'x.csv:2: column 306 is "x": expected a whole number from 0 to 255'),
    "range": ("x.csv", lambda x: b"1," * 305 + b"-1\n", 'x.csv:1: column 306 is "-1": expected a whole number from 0 to 255'),
    "empty": ("x.csv", lambda x: b"", "x.csv is empty"),
    "unknown": ("x.bin", lambda x: b"\1\0\2\3" * 9, "x.bin is a binary file of another format: expected one of PNG, JPEG, NPY, NPZ, IDX, CSV"),
}
NPY = {
    "shape": (lambda x: x[:, :9], "x.npy has the shape (130, 9, 18): the model takes (n, 17, 18) or (n, 1, 17, 18)"),
    "flat": (lambda x: x.reshape(130, -1), "x.npy has the shape (130, 306): the model takes (n, 17, 18) or (n, 1, 17, 18)"),
    "floats": (lambda x: x / 255, ": the model takes bytes, whole numbers from 0 to 255"),
    "none": (lambda x: x[:0], "x.npy is empty: expected at least one sample"),
}
OPTIONS = {
    "no input": ([], "expected --input FILE"),
    "members": (["--input", "test-images", "--ensemble", "0"], '--ensemble is "0": expected a number of members from 1 to 100000'),
    "two numbers": (["--input", "test-images", "--ensemble", "5,10"], '--ensemble is "5,10": expected a number of members'),
    "no sheet": (["--input", "test-images", "--top-uncertain", "5"], "--top-uncertain draws a contact sheet: also specify -o FILE.png"),
    "no number": (["--input", "test-images", "-o", "s.png"], "-o names the contact sheet of --top-uncertain N"),
    "no PNG": (["--input", "test-images", "-o", "s.jpg", "--top-uncertain", "5"], "-o s.jpg: expected a name that ends in .png"),
    "no folder": (["--input", "test-images", "-o", "none/s.png", "--top-uncertain", "5"], "cannot write none/s.png: none: No such file or directory"),
    "no place": (["--input", "test-images", "-o", "test-images/s.png", "--top-uncertain", "5"], "cannot write test-images/s.png: test-images: "),
    "not there": (["--input", "nothing.csv"], "cannot open nothing.csv: No such file or directory"),
    "nothing in it": (["--input", "void"], "void contains no images"),
}


def refuse(coppice, folder, arguments, sentence):
    before = sorted(path.name for path in folder.iterdir())
    done = coppice("predict", *arguments, status=2)
    assert sentence in done.stderr and done.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing is left behind"


@pytest.mark.asan
def test_bad_input_gets_an_exact_message(program, coppice, run, tmp_path):
    (tmp_path / "void").mkdir()
    x = images(tmp_path)
    for name, make, sentence in BAD.values():
        (tmp_path / name).write_bytes(make(x))
        refuse(coppice, tmp_path, [run, "--input", name, "--top-uncertain", 3, "-o", "s.png"], sentence)
        done = predict(program, tmp_path, run, "--input", "-", stdin=make(x))
        assert done.returncode == 2 and sentence.replace(name, "standard input") in done.stderr.decode()
    for make, sentence in NPY.values():
        np.save(tmp_path / "x.npy", make(x))
        refuse(coppice, tmp_path, [run, "--input", "x.npy", "--top-uncertain", 3, "-o", "s.png"], sentence)
    for arguments, sentence in OPTIONS.values():
        refuse(coppice, tmp_path, [run, *arguments], sentence)
    refuse(coppice, tmp_path, ["nomodel", "--input", "test-images"], "nomodel")


def test_unsuitable_types_and_values_are_refused(coppice, tmp_path):
    noise = np.random.RandomState(1)
    x = noise.normal(0, 1, (60, 3)).astype(np.float32)
    np.savetxt(tmp_path / "train.csv", np.column_stack([x, np.arange(60) % 2]), fmt=["%.6g"] * 3 + ["%d"], delimiter=",")
    (tmp_path / "job.yaml").write_text(
        "name: flat\ndata: {source: csv, train: train.csv, validation: 9}\nmodel:\n  - linear: {units: 2}\n"
        "train: {steps: 3, batch: 8}\noptimizer: {sgd: {rate: 1}}\n"
    )
    coppice("run", "job.yaml", "--out", "r", "--quiet")
    write_idx(tmp_path / "x.idx", (2, 3), bytes(6))
    np.save(tmp_path / "u.npy", np.zeros((2, 3), np.uint8))
    np.save(tmp_path / "inf.npy", np.array([[0, 0, 0], [0, np.inf, 0]], np.float32))
    (tmp_path / "large.csv").write_text("0,0,0\n1,2,3\n3e38,-3e38,3e38\n-3e38,3e38,-3e38\n")
    (tmp_path / "x.png").write_bytes(png(np.zeros((3, 3), np.uint8)))
    for arguments, sentence in (
        (["--input", "x.idx"], "x.idx contains bytes: the model takes floats (NPY, NPZ or CSV)"),
        (["--input", "inf.npy"], "inf.npy: element 4 is not a finite 32-bit number"),
        (["--input", "x.png"], "x.png is an image of 3 x 3 pixels in grey, of 1 channel: the model takes flat samples of 3 values, not images"),
        (["--input", "large.csv"], "the network's outputs for sample 2 are not finite"),
        (["--input", "train.csv", "--ensemble", "3"], "the model has no random layer"),
        (["--input", "train.csv", "--top-uncertain", "3", "-o", "s.png"], "the model's samples are not images: 3 flat values"),
    ):
        refuse(coppice, tmp_path, ["r", *arguments], sentence)
    assert "60 samples" in coppice("predict", "r", "--input", "train.csv").stdout
    assert "2 samples" in coppice("predict", "r", "--input", "u.npy").stdout
