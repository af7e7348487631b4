"""Files as users' programs write them (Pillow, NumPy, Keras, PyTorch, spreadsheets) are read, or refused with a message that describes them."""

import gzip
import io
import json
import os
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps

JOB = """
name: files
seed: 3
data: {data}
model:
  - linear: {{units: 8}}
  - relu
  - dropout
  - linear: {{units: {classes}}}
train: {{steps: 30, batch: 8, shards: 2}}
optimizer: {{sgd: {{rate: 0.05}}}}
"""
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


@pytest.fixture
def job(tmp_path):
    def write(data, classes=3, name="job.yaml"):
        (tmp_path / name).write_text(JOB.format(data=data, classes=classes))
        return name

    return write


def colours(folder, count=6):
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(np.array(colour) + np.random.RandomState(i).randint(-20, 20, (6, 6, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def as_npz(path, x):
    """Writes these samples as an archive, sorted into two classes."""
    np.savez(path, images=np.ascontiguousarray(x), labels=np.sort(np.arange(len(x)) % 2))
    return path.name


def as_folder(folder, files):
    """Writes the files into the class folders a and b, half into each."""
    for i, content in enumerate(files):
        place = folder / ("a" if i < (len(files) + 1) // 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:03}.img").write_bytes(content)
    return folder.name


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# ---- names of classes ----


def test_class_names_are_kept_with_the_model(coppice, job, tmp_path):
    colours(tmp_path / "set")
    name = job("{source: image-folder, train: set, validation: 3}")
    plan = coppice("plan", name)
    assert all(f"{colour} " in plan.stdout for colour in COLOURS), plan.stdout
    coppice("run", name, "--quiet", "--workers", 1, "--out", "run")
    shutil.rmtree(tmp_path / "set/green")
    shutil.move(tmp_path / "run/model.safetensors", tmp_path / "alone.safetensors")
    shutil.rmtree(tmp_path / "run")
    table = coppice("predict", "alone.safetensors", "--input", "set/red").stdout
    assert "blue: 0." in table and "green: 0." in table and "red: 0." in table, table
    lines = [json.loads(line) for line in coppice("predict", "alone.safetensors", "--input", "set/red", "--json", status=None).stdout.splitlines()]
    assert {(line["class"], line["class_name"]) for line in lines} <= {(0, "blue"), (1, "green"), (2, "red")}
    assert coppice("inspect", "alone.safetensors", "--json")["class_names"] == ["blue", "green", "red"]
    assert "classes: 0 blue, 1 green, 2 red" in coppice("inspect", "alone.safetensors").stdout
    coppice("export", "alone.safetensors", "--format", "torch", "-o", "model.py")
    assert 'CLASSES = ["blue", "green", "red"]' in (tmp_path / "model.py").read_text()
    shutil.copy(tmp_path / "set/red/0.png", tmp_path / "set/blue/other.png")
    coppice("predict", "alone.safetensors", "--input", "set/red", "--ensemble", 3, "--top-uncertain", 2, "-o", "sheet.png")


def test_class_names_do_not_change_the_digest(coppice, job, tmp_path):
    colours(tmp_path / "set")
    coppice("run", job("{source: image-folder, train: set, validation: 3}"), "--quiet", "--workers", 1, "--out", "run")
    for i, name in enumerate(sorted(COLOURS)):
        (tmp_path / f"set/{name}").rename(tmp_path / f"set/{i} other")
    again = coppice("run", job("{source: image-folder, train: set, validation: 3}"), "--json", "--quiet", "--workers", 1, "--out", "again")
    assert again["digest"] == coppice("digest", "run").stdout.strip()
    coppice("run", "job.yaml", "--quiet", "--out", "run", "--resume", "auto", "--set", "train.steps=31")


def test_invalid_class_names_are_replaced_by_numbers(coppice, job, tmp_path):
    for name in (b"caf\xe9", b"tea"):
        folder = bytes(tmp_path / "set") + b"/" + name
        (tmp_path / "set").mkdir(exist_ok=True)
        os.mkdir(folder)
        for i in range(4):
            with open(folder + f"/{i}.png".encode(), "wb") as file:
                file.write(saved(Image.new("L", (4, 4), 50 * i), "PNG"))
    done = coppice("inspect", "set")
    assert "class 0 " in done.stdout and "the class names are ignored, and classes have only numbers" in done.stderr


def test_class_names_are_uploaded_with_the_data(cluster, coppice, job, tmp_path):
    colours(tmp_path / "set")
    c = cluster()
    c.worker("w")
    c.client("submit", job("{source: image-folder, train: set, validation: 3}"), "--data", tmp_path, "--quiet")
    assert "red: 0." in c.client("predict", "1", "--input", "set/red").stdout
    c.client("submit", job("{source: files, validation: 3}"), "--quiet")
    assert "red: 0." in c.client("predict", "2", "--input", "set/red").stdout


# ---- pictures ----


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(coppice, tmp_path, kind):
    image = Image.fromarray(np.random.RandomState(1).randint(0, 256, (8, 8), dtype=np.uint8))
    files, upright = [], []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(saved(image, kind, exif=exif))
        upright.append(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(files[-1])))))
    assert len({x.tobytes() for x in upright}) == 8
    expected = coppice("inspect", as_npz(tmp_path / "x.npz", np.stack(upright)), "--json")["digest"]
    assert coppice("inspect", as_folder(tmp_path / "set", files), "--json")["digest"] == expected


def test_grey_pictures_among_colour_ones_become_three_equal_channels(coppice, tmp_path):
    random = np.random.RandomState(2)
    pictures = [random.randint(0, 256, (5, 4, 3) if i % 2 else (5, 4), dtype=np.uint8) for i in range(6)]
    x = np.stack([p.transpose(2, 0, 1) if p.ndim == 3 else np.repeat(p[None], 3, axis=0) for p in pictures])
    expected = coppice("inspect", as_npz(tmp_path / "x.npz", x), "--json")["digest"]
    files = [saved(Image.fromarray(p), "PNG") for p in pictures]
    assert coppice("inspect", as_folder(tmp_path / "set", files), "--json")["digest"] == expected


def resized(plane, size, axis):
    """Returns sums of integers along one axis, and their divisor."""
    plane = np.moveaxis(plane.astype(object), axis, 0)
    n = len(plane)
    if size <= n:  # shrink: the area that the new pixel covers
        fine = np.repeat(plane, size, axis=0)
        out, whole = np.stack([fine[i * n:(i + 1) * n].sum(axis=0) for i in range(size)]), n
    else:  # enlarge: between the two nearest centres
        rows = []
        for i in range(size):
            centre = min(max((2 * i + 1) * n - size, 0), (n - 1) * 2 * size)
            low = min(centre // (2 * size), n - 1)
            part = centre - low * 2 * size
            rows.append(plane[low] * (2 * size - part) + plane[min(low + 1, n - 1)] * part)
        out, whole = np.stack(rows), 2 * size
    return np.moveaxis(out, 0, axis), whole


@pytest.mark.parametrize("height,width", [(5, 7), (11, 9), (20, 30), (12, 6)])
def test_pictures_are_resized_to_one_size(coppice, job, tmp_path, height, width):
    random = np.random.RandomState(3)
    files, expected = [], []
    for i in range(6):
        picture = random.randint(0, 256, (9 + i, 11 - i, 3), dtype=np.uint8)
        files.append(saved(Image.fromarray(picture), "PNG"))
        rows, first = resized(picture, height, 0)
        both, second = resized(rows, width, 1)
        expected.append(((both + first * second // 2) // (first * second)).astype(np.uint8).transpose(2, 0, 1))
    as_folder(tmp_path / "set", files)
    error = coppice("inspect", "set", status=2).stderr
    assert "set/a/001.img has 10 x 10 pixels: expected 11 x 9, as in set/a/000.img (set data.resize: [9, 11] to give all images this size)" in error
    digest = coppice("inspect", as_npz(tmp_path / "x.npz", np.stack(expected)), "--json")["digest"]
    assert coppice("inspect", "set", "--resize", f"{height}x{width}", "--json")["digest"] == digest
    name = job("{source: image-folder, train: set, validation: 2, resize: [%d, %d]}" % (height, width), classes=2)
    coppice("run", name, "--quiet", "--workers", 1, "--out", "run")
    assert coppice("predict", "run", "--input", "set/a").stdout.count("img") == 3
    name = job("{source: image-folder, train: set, validation: 2, resize: [7]}", classes=2)
    assert "data.resize has 1 item: expected two, [height, width]" in coppice("plan", name, status=2).stderr


def test_each_command_names_a_missing_file(coppice, job, tmp_path):
    as_folder(tmp_path / "set", [saved(Image.new("L", (4, 4), 40 * i), "PNG") for i in range(4)])
    (tmp_path / "set/b/gone.png").symlink_to("nowhere.png")
    for command in (("inspect", "set"), ("run", job("{source: image-folder, train: set, validation: 2}", classes=2))):
        assert "set/b/gone.png" in coppice(*command, status=2).stderr
    np.savez(tmp_path / "z.npz", u=np.zeros((4, 2)), v=np.arange(4))
    assert 'z.npz has no array "images"; it has: u, v' in coppice("inspect", "z.npz", status=2).stderr


# ---- arrays ----


def test_keras_archives_are_read(coppice, job, tmp_path):
    random = np.random.RandomState(4)
    x, y = random.randint(0, 256, (12, 8, 8, 3), dtype=np.uint8), np.arange(12)[:, None] % 2
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    np.savez(tmp_path / "own.npz", images=x.transpose(0, 3, 1, 2), labels=y[:, 0])
    np.savez(tmp_path / "test.npz", images=x[:4].transpose(0, 3, 1, 2), labels=y[:4, 0])
    found = coppice("inspect", "keras.npz", "--json")
    assert found["shape"] == [3, 8, 8] and [part["samples"] for part in found["parts"]] == [12, 4]
    digests = [coppice("run", job("{source: npy, train: %s, test: %s}" % files, classes=2), "--json", "--quiet", "--out", files[0] + ".run")["digest"]
               for files in (("keras.npz", "keras.npz"), ("own.npz", "test.npz"))]
    assert digests[0] == digests[1]
    table = [coppice("predict", "keras.npz.run", "--input", name).stdout for name in ("keras.npz", "test.npz")]
    assert table[0] == table[1]


def test_duplicate_array_names_are_refused(coppice, tmp_path):
    x, y = np.zeros((4, 6), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "one.npz", images=x, labels=y)
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(tmp_path / "two.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members + members[:1]:
            archive.writestr(name, content)
    assert 'two.npz has two arrays "images": expected one' in coppice("inspect", "two.npz", status=2).stderr


def test_ambiguous_array_layout_asks_for_the_option(coppice, job, tmp_path):
    x = np.random.RandomState(5).randint(0, 256, (8, 3, 5, 3), dtype=np.uint8)
    as_npz(tmp_path / "x.npz", x)
    as_npz(tmp_path / "moved.npz", np.concatenate([x.transpose(0, 3, 1, 2)] * 2, axis=2)[:, :, :3])
    error = coppice("inspect", "x.npz", status=2).stderr
    assert "has the ambiguous shape (8, 3, 5, 3): the channels may be first or last; expected data.layout: nchw or nhwc" in error
    data = "{source: npy, train: x.npz, validation: 2%s}"
    assert "expected data.layout: nchw or nhwc" in coppice("plan", job(data % "", 2), status=2).stderr
    assert coppice("inspect", "x.npz", "--layout", "nhwc", "--json")["shape"] == [3, 3, 5]
    coppice("run", job(data % ", layout: nhwc", 2), "--quiet", "--out", "run")
    coppice("predict", "run", "--input", "x.npz")
    assert "expected npy or idx" in coppice("plan", job("{source: csv, train: a.csv, layout: nhwc}"), status=2).stderr


# ---- CSV ----

FLOWERS = [("x1", 0.5, -1.25, "rose"), ("x2", 5.5, -5.0, "iris"), ("x3", 2.5, 3.0, "lily")] * 4


def table(separator, decimal, header="id,a,b,species"):
    lines = [header.replace(",", separator)] if header else []
    for row in FLOWERS:
        lines.append(separator.join(str(v).replace(".", decimal) if isinstance(v, float) else v for v in row))
    return "\n".join(lines) + "\n"


def test_predict_reads_the_same_csv_dialects_as_training(coppice, job, tmp_path):
    (tmp_path / "a.csv").write_text(table(",", "."))
    name = job("{source: csv, train: a.csv, test: a.csv, label: species, drop: [id], normalize: standard}")
    coppice("run", name, "--quiet", "--out", "run", "--set", "train.steps=200")
    first = coppice("predict", "run", "--input", "a.csv").stdout
    assert "error 0.00 %" in first and "rose: " in first
    (tmp_path / "b.csv").write_bytes(table(";", ",").replace("\n", "\r").encode())
    (tmp_path / "c.tsv").write_bytes(gzip.compress(table("\t", ".")[:60].encode()) + b"")
    (tmp_path / "c.tsv").write_bytes(gzip.compress(table("\t", ".")[:60].encode()) + gzip.compress(table("\t", ".")[60:].encode()))
    (tmp_path / "d.csv").write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in table(",", ".").splitlines()))
    for other in ("b.csv", "c.tsv"):
        assert coppice("predict", "run", "--input", other).stdout == first, other
    assert "LABEL" not in coppice("predict", "run", "--input", "d.csv").stdout
    (tmp_path / "e.csv").write_text(table(",", ".").replace("lily", "tulip"))
    assert 'e.csv:4: column "species" is "tulip": expected a class of the model, iris, lily, rose' in coppice(
        "predict", "run", "--input", "e.csv", status=2).stderr


def test_inspect_accepts_label_and_drop(coppice, tmp_path):
    (tmp_path / "a.csv").write_text("label,id,p0,p1\n" + "".join(f"{i % 3},x{i},{i},{2 * i}\n" for i in range(9)))
    error = coppice("inspect", "a.csv", status=2).stderr
    assert 'a.csv:2: column "id" is "x0": expected a number' in error
    found = coppice("inspect", "a.csv", "--label", "label", "--drop", "id", "--json")
    assert found["shape"] == [2] and found["classes"] == 3
    assert coppice("inspect", "a.csv", "--label", "1", "--drop", "2", "--json")["digest"] == found["digest"]
    assert 'did you mean "label"?' in coppice("inspect", "a.csv", "--label", "lable", status=2).stderr


@pytest.mark.parametrize("source, option, value, wanted", [
    ("x.npz", "label", "1", "a CSV file"), ("x.npz", "drop", "1", "a CSV file"), ("a.csv", "layout", "nhwc", "an NPZ file"),
    ("a.csv", "resize", "4x4", "a folder of pictures"), ("a.csv", "data", ".", "the name of a data set"),
    ("synthetic-digits", "label", "y", "a CSV file"), ("run", "data", ".", "the name of a data set"), ("run", "rows", "3", "data")])
def test_inspect_refuses_options_that_do_not_apply_to_the_source(coppice, small, tmp_path, source, option, value, wanted):
    (tmp_path / "a.csv").write_text("0,1,2\n1,3,4\n")
    as_npz(tmp_path / "x.npz", np.zeros((6, 1, 4, 4), np.uint8))
    if source == "run":
        coppice("run", small(3), "--out", "run", "--quiet")
    error = coppice("inspect", source, f"--{option}", value, status=2).stderr
    assert f"--{option} does not apply to {source}, " in error and error.endswith(f"it is for {wanted}\n"), error


def test_inspect_takes_rows_only_with_a_sheet(coppice):
    assert "--rows is for the contact sheet: name its file with -o FILE.png" in coppice(
        "inspect", "synthetic-digits", "--rows", "3", status=2).stderr


@pytest.mark.parametrize("name, last, hinted", [
    ("label", "pixel3", True), ("Class", "pixel3", True), ("target", "pixel3", True),
    ("label", "target", False), ("id", "pixel3", False)])
def test_label_name_before_the_last_column_gives_a_warning(coppice, job, tmp_path, name, last, hinted):
    """For a file like Kaggle's train.csv, `inspect`, `plan` and `run` warn about it."""
    (tmp_path / "train.csv").write_text(f"{name},pixel0,pixel1,{last}\n" + "".join(
        f"{i % 3},{5 * i % 12},{9 * i},{i // 3 % 2}\n" for i in range(12)))
    job("{source: csv, train: train.csv, validation: 4}", classes=2)
    for words in (("inspect", "train.csv"), ("plan", "job.yaml")):
        errors = coppice(*words).stderr
        assert (f'train.csv: the last column, "{last}", is used as the label, although a column is called "{name}"' in errors) == hinted, errors
        hint = errors.partition("inspect: ")[2].partition(")")[0]
        assert hint == (f"--label {name}" if hinted else "")
    assert coppice("inspect", "train.csv", "--label", name).stderr == ""
    assert coppice("inspect", "train.csv", "--label", name, "--json")["classes"] == 3


def test_inspect_lists_no_classes_of_an_empty_part(coppice, tmp_path):
    (tmp_path / "a.csv").write_text("p,label\n" + "".join(f"{i},{i % 3}\n" for i in range(9)))
    lines = coppice("inspect", "a.csv").stdout.splitlines()
    assert lines[-1] == "test   0 samples" and sum("class" in line for line in lines[1:]) == 3


# ---- models and job files ----


def tensors(path, names, metadata):
    """Writes a safetensors file for the small network below, with a hand-made header."""
    shapes, at, header = [(4, 2), (4,), (2, 4), (2,)], 0, ['"__metadata__": ' + metadata]
    for name, shape in zip(names, shapes):
        size = 4 * int(np.prod(shape))
        header.append(f'"{name}": {{"dtype": "F32", "shape": {list(shape)}, "data_offsets": [{at}, {at + size}]}}')
        at += size
    text = ("{" + ", ".join(header) + "}").encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + np.arange(at // 4, dtype="<f4").tobytes())


def test_foreign_models_are_imported_or_refused_with_details(coppice, tmp_path):
    (tmp_path / "a.csv").write_text("1,2,0\n2,1,1\n3,1,1\n4,2,0\n")
    (tmp_path / "job.yaml").write_text("""
name: m
data: {source: csv, train: a.csv, validation: 2}
model: [{linear: {units: 4}}, relu, {linear: {units: 2}}]
train: {steps: 1, batch: 2, shards: 1}
optimizer: {sgd: {rate: 0.1}}
""")
    good = ["0.weight", "0.bias", "2.weight", "2.bias"]

    def imported(names, metadata, status=0):
        tensors(tmp_path / "x.safetensors", names, metadata)
        return coppice("import", "x.safetensors", "--spec", "job.yaml", "-o", "m.safetensors", status=status)

    digest = imported(good, "{}").stdout
    for metadata in ("null", '{"note": "\\ud83d\\ude00"}', '{"note": "\U0001f600"}'):
        assert imported(good, metadata).stdout == digest, metadata
    for broken in ('{"note": "\\ud83d"}', '{"note": "\\ude00\\ud83d"}', '{"note": null}', "nul"):
        assert "the header is damaged" in imported(good, broken, status=2).stderr, broken
    for prefix in ("module.", "_orig_mod.", "model.net."):
        done = imported([prefix + name for name in good], "{}")
        assert done.stdout == digest and f'all names begin with "{prefix}": this prefix is ignored' in done.stderr
    error = imported(["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"], "{}", status=2).stderr
    assert "has no tensor 0.weight, which the job needs; it has: fc1.weight, fc1.bias, fc2.weight, fc2.bias" in error


MEANT = [
    ("optimizer: {sgd: {lr: 0.05}}", "rate"), ("optimizer: {adam: {learning_rate: 0.1}}", "rate"), ("optimizer: {adam: {eps: 0.1}}", "epsilon"),
    ("train: {steps: 30, batch_size: 8}", "batch"), ("train: {num_epochs: 3}", "epochs"), ("model: [{linear: {hidden: 3}}]", "units"),
    ("model: [{dropout: {rate: 0.5}}]", "p"), ("model: [{dropout: {dropout_rate: 0.5}}]", "p"), ("model: [{dense: {units: 3}}]", "linear"),
    ("model: [{conv2d: {filters: 3}}]", "channels"), ("model: [{max_pool2d: {kernel_size: 2}}]", "kernel"), ("loss: binary_crossentropy", "bce"),
    ("data: {source: csv, train: a.csv, ignore: [id]}", "drop"), ("random_state: 3", "seed"),
]


@pytest.mark.parametrize("line,meant", MEANT, ids=lambda text: text)
def test_field_names_of_other_programs_get_a_suggestion(coppice, tmp_path, line, meant):
    fields = {"name": "n", "data": "{source: synthetic-digits}", "model": "[{linear: {units: 10}}]", "train": "{steps: 1}", "optimizer": "{sgd: {rate: 0.1}}"}
    key, value = line.split(": ", 1)
    fields[key] = value
    (tmp_path / "job.yaml").write_text("".join(f"{k}: {v}\n" for k, v in fields.items()))
    assert f'did you mean "{meant}"?' in coppice("plan", "job.yaml", status=2).stderr


def test_booleans_are_read_as_in_yaml(coppice, job, tmp_path):
    digests = set()
    for word in ("true", "True", "TRUE"):
        text = JOB.format(data="{source: synthetic-digits, samples: 50}", classes=10).replace("rate: 0.05", f"rate: 0.05, momentum: 0.9, nesterov: {word}")
        (tmp_path / "job.yaml").write_text(text.replace("steps: 30", "steps: 2").replace("seed: 3", "limits: Null"))
        digests.add(coppice("run", "job.yaml", "--json", "--quiet", "--out", word)["digest"])
    assert len(digests) == 1
    (tmp_path / "job.yaml").write_text(text.replace("nesterov: TRUE", "nesterov: yes"))
    assert "expected true or false" in coppice("plan", "job.yaml", status=2).stderr
