"""Data files of every format, written by NumPy and PIL: the same values give the same bits, and bad files give an exact error."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image

from integration_tools import write_idx

JOB = """
name: formats
seed: 3
data: {data}
model:
  - linear: {{units: 16}}
  - relu
  - dropout
  - linear: {{units: 4}}
train: {{steps: 12, batch: 32, shards: 4}}
optimizer: {{sgd: {{rate: 0.05, momentum: 0.9}}}}
"""
IDX = "{source: idx, train: {images: train-images, labels: train-labels}, test: {images: test-images, labels: test-labels}%s}"


def pictures(shape=(9, 8), counts=(70, 30)):
    """Noisy patterns of four classes, sorted by class: (images, labels) of both parts."""
    random = np.random.RandomState(5)
    patterns = random.randint(0, 256, (4, *shape))
    parts = []
    for count in counts:
        labels = np.sort(np.arange(count) % 4).astype(np.uint8)
        parts.append((((patterns[labels] + 2 * random.randint(0, 256, (count, *shape))) // 3).astype(np.uint8), labels))
    return parts


def as_idx(folder, parts):
    for name, (x, y) in zip(("train", "test"), parts):
        write_idx(folder / f"{name}-images", x.shape, x.tobytes())
        write_idx(folder / f"{name}-labels", y.shape, y.tobytes())
    return IDX % ""


def as_folder(folder, parts, encode):
    for name, (x, y) in zip(("train", "test"), parts):
        for i, (image, label) in enumerate(zip(x, y)):
            place = folder / name / f"class-{label}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i:04}.img").write_bytes(encode(image))
    return "{source: image-folder, train: train, test: test}"


def encoded(image, kind="PNG", **options):
    """Encodes (height, width) or (3, height, width) bytes as an image file."""
    out = io.BytesIO()
    Image.fromarray(image if image.ndim == 2 else image.transpose(1, 2, 0)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def train(coppice, tmp_path):
    """train(data, *arguments): runs the small job on `data` (the YAML of its data section)."""

    def call(data, *arguments, status=0):
        job = tmp_path / "job.yaml"
        job.write_text(JOB.format(data=data))
        if status:
            return coppice("run", job, "--quiet", *arguments, status=status).stderr
        return coppice("run", job, "--json", "--quiet", *arguments)["digest"]

    return call


def test_png_folder_idx_and_npy_give_the_same_data_set(coppice, train, tmp_path):
    parts = pictures()
    digest = train(as_idx(tmp_path, parts))
    assert train(as_folder(tmp_path, parts, encoded)) == digest
    for name, (x, y) in zip(("train", "test"), parts):
        np.save(tmp_path / f"{name}-x.npy", x)
        np.save(tmp_path / f"{name}-y.npy", y.astype(np.int64))
    npy = "{source: npy, train: {images: train-x.npy, labels: train-y.npy}, test: {images: test-x.npy, labels: test-y.npy}}"
    assert train(npy) == digest
    assert coppice("inspect", tmp_path, "--json")["digest"] == pinned(coppice, tmp_path, npy)["data_digest"]


def pinned(coppice, tmp_path, data):
    """The pinned section of a job on `data`."""
    job = tmp_path / "pin.yaml"
    job.write_text(JOB.format(data=data))
    out = tmp_path / "pinned"
    coppice("run", job, "--quiet", "--out", out, "--overwrite", "--set", "train.steps=1")
    lines = iter((out / "job.yaml").read_text().split("pinned:")[1].splitlines())
    section = {}
    for line in lines:
        key, found, value = line.strip().partition(": ")
        if found:
            section[key] = json.loads(value) if value.startswith("[") else value.strip('"')
    return section


def test_npz_may_hold_both_parts_under_any_names(train, tmp_path):
    parts = pictures()
    digest = train(as_idx(tmp_path, parts))
    (x, y), (u, v) = parts
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "all.npz", x_train=x, y_train=y, x_test=u, y_test=v)
        assert train("{source: npy, train: {path: all.npz, images: x_train, labels: y_train}, "
                     "test: {path: all.npz, images: x_test, labels: y_test}}") == digest
    np.savez(tmp_path / "a.npz", images=x, labels=y)
    np.savez(tmp_path / "b.npz", images=u, labels=v)
    assert train("{source: npy, train: a.npz, test: b.npz}") == digest


def test_colour_png_of_every_kind_and_jpeg_are_read(train, tmp_path):
    parts = pictures((3, 9, 8))
    digest = train(as_idx(tmp_path, parts))
    assert train(as_folder(tmp_path, parts, encoded)) == digest

    def with_alpha(image):
        return encoded(np.concatenate([image, np.full((1, 9, 8), 77, np.uint8)]))

    assert train(as_folder(tmp_path, parts, with_alpha)) == digest
    decoded = [(np.stack([np.asarray(Image.open(io.BytesIO(encoded(i, "JPEG", quality=70)))).transpose(2, 0, 1) for i in x]), y)
               for x, y in parts]
    jpeg = train(as_folder(tmp_path, parts, lambda image: encoded(image, "JPEG", quality=70)))
    assert jpeg == train(as_idx(tmp_path, decoded)) != digest


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_cifar_is_read_in_its_published_format(coppice, train, tmp_path, source):
    classes = int(source[5:])
    names, last, head = ([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", b"") if classes == 10 else (
        ["train.bin"], "test.bin", b"\x07")  # the coarse label
    (x, y), (u, v) = pictures((3, 32, 32), (75, 20))
    y[-1] = classes - 1
    units = ("--set", f"model.3.linear.units={classes}")
    digest = train(as_idx(tmp_path, [(x, y), (u, v)]), *units)
    place = tmp_path / "set"
    place.mkdir()
    for i, name in enumerate(names):
        rows = range(i * 75 // len(names), (i + 1) * 75 // len(names))
        (place / name).write_bytes(b"".join(head + bytes([y[r]]) + x[r].tobytes() for r in rows))
    (place / last).write_bytes(b"".join(head + bytes([b]) + a.tobytes() for a, b in zip(u, v)))
    assert coppice("inspect", place, "--json")["classes"] == classes
    assert train(f"{{source: {source}}}", "--data", place, *units) == digest
    whole = (place / last).read_bytes()
    (place / last).write_bytes(whole[:-1])
    record = 3072 + len(head) + 1
    assert f"{last} has {len(whole) - 1} bytes: expected records of {record} bytes" in train(
        f"{{source: {source}}}", "--data", place, *units, status=2)
    (place / last).unlink()
    assert f"set has no {last}" in train(f"{{source: {source}}}", "--data", place, *units, status=2)


def rows_of_csv(parts, tmp_path, names, header=True):
    for name, (x, y) in zip(names, parts):
        flat = x.reshape(len(x), -1)
        lines = ['a,"the ""class""",' + ",".join(f"x{i}" for i in range(1, flat.shape[1]))] if header else []
        lines += [",".join([repr(float(r[0])), str(int(label)), *(repr(float(v)) for v in r[1:])]) for r, label in zip(flat, y)]
        (tmp_path / name).write_text("\r\n".join(lines) + "\r\n\n")


def test_csv_label_by_name_or_number_agrees_with_npy(train, tmp_path):
    parts = [((x.reshape(len(x), -1) / np.float64(7)).astype(np.float32) - 9, y) for x, y in pictures((3, 2))]
    for name, (x, y) in zip(("train", "test"), parts):
        np.save(tmp_path / f"{name}-x.npy", x)
        np.save(tmp_path / f"{name}-y.npy", y)
    digest = train("{source: npy, train: {images: train-x.npy, labels: train-y.npy}, test: {images: test-x.npy, labels: test-y.npy}}")
    rows_of_csv(parts, tmp_path, ("train.csv", "test.csv"))
    assert train("{source: csv, train: train.csv, test: test.csv, label: 'the \"class\"'}") == digest
    rows_of_csv(parts, tmp_path, ("train.csv", "test.csv"), header=False)
    assert train("{source: csv, train: {path: train.csv}, test: {path: test.csv}, label: 2}") == digest
    assert len(train("{source: csv, train: train.csv, label: 2, validation: 20}")) == 64  # without a test part


def test_inspect_takes_files_and_folders(coppice, tmp_path):
    parts = pictures((3, 9, 8))
    as_folder(tmp_path / "pets", parts, encoded)
    seen = coppice("inspect", tmp_path / "pets", "--json", "-o", tmp_path / "sheet.png")
    assert seen["shape"] == [3, 9, 8] and seen["type"] == "u8" and seen["classes"] == 4
    assert [part["samples"] for part in seen["parts"]] == [70, 30]
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
    rows_of_csv([(x.reshape(len(x), -1)[:, :4], y % 2) for x, y in parts], tmp_path, ("a.csv",), header=False)
    seen = coppice("inspect", tmp_path / "a.csv", "--json", status=0)
    assert seen["shape"] == [4] and seen["type"] == "u8", "whole numbers up to 255 are bytes in any format"
    (tmp_path / "b.csv").write_text("1.5,0\n3,1\n")
    assert coppice("inspect", tmp_path / "b.csv", "--json")["type"] == "f32"
    text = coppice("inspect", tmp_path / "b.csv").stdout
    assert "train  2 samples\n" in text and "mean" not in text
    (tmp_path / "a.csv").write_text("1,2\n3\n")
    assert "a.csv:2: 1 field: expected 2" in coppice("inspect", tmp_path / "a.csv", status=2).stderr


def test_normalisation_is_pinned_and_matches_numpy(coppice, train, tmp_path):
    parts = pictures((3, 9, 8))
    data = as_idx(tmp_path, parts)[:-1] + ", validation: 14, split: last, normalize: standard}"
    section = pinned(coppice, tmp_path, data)
    seen = parts[0][0][:56].astype(np.float64) / 255
    assert np.allclose(section["mean"], seen.mean(axis=(0, 2, 3)), rtol=1e-14, atol=0)
    assert np.allclose(section["std"], seen.std(axis=(0, 2, 3)), rtol=1e-12, atol=0)
    digest = train(data)
    assert digest != train(IDX % ", validation: 14, split: last") and digest != train(IDX % ", validation: 14, split: last, normalize: none")
    # The same with f32 samples that were normalised beforehand.
    mean, std = (np.float32(section[k]).reshape(3, 1, 1) for k in ("mean", "std"))
    for name, (x, y) in zip(("train", "test"), parts):
        np.save(tmp_path / f"{name}-x.npy", (x.astype(np.float32) / np.float32(255) - mean) / std)
        np.save(tmp_path / f"{name}-y.npy", y)
    by_hand = ("{source: npy, train: {images: train-x.npy, labels: train-y.npy}, test: {images: test-x.npy, labels: test-y.npy}, "
               "validation: 14, split: last, normalize: none}")
    assert train(by_hand) == digest
    for name, (x, _) in zip(("train", "test"), parts):
        np.save(tmp_path / f"{name}-x.npy", x.astype(np.float64))
    assert train(by_hand) == train(IDX % ", validation: 14, split: last, normalize: none")
    flat = [(x.reshape(len(x), -1)[:, :6], y) for x, y in parts]
    rows_of_csv(flat, tmp_path, ("train.csv", "test.csv"))
    section = pinned(coppice, tmp_path, "{source: csv, train: train.csv, test: test.csv, label: 'the \"class\"', normalize: standard}")
    assert np.allclose(section["mean"], flat[0][0].mean(axis=0) / 255, rtol=1e-13)
    assert np.allclose(section["std"], flat[0][0].std(axis=0) / 255, rtol=1e-12)


@pytest.mark.parametrize("features, statistics", [(1025, 1025), (16384, 16384), (16385, 1)])
def test_any_number_of_columns_is_normalised(coppice, cluster, train, tmp_path, features, statistics):
    """With more than 16384 columns there is one mean and one deviation for all. The statistics are larger than the header of a frame."""
    random = np.random.RandomState(2)
    images = random.rand(60, features).astype(np.float32)
    np.savez(tmp_path / "wide.npz", images=images, labels=np.arange(60) % 4)
    data = "{source: npy, train: wide.npz, validation: 8, split: last, normalize: standard}"
    digest = train(data, "--out", tmp_path / "run", "--overwrite")
    section = yaml.safe_load((tmp_path / "run/job.yaml").read_text())["pinned"]
    assert len(section["mean"]) == len(section["std"]) == statistics
    seen = images[:52].astype(np.float64).reshape(-1, statistics)
    assert np.allclose(section["mean"], seen.mean(axis=0), rtol=1e-12) and np.allclose(section["std"], seen.std(axis=0), rtol=1e-9)
    again = coppice("run", tmp_path / "run/job.yaml", "--data", tmp_path, "--json", "--quiet")  # reads the pinned statistics again
    assert again["digest"] == digest
    pool = cluster("ipc")
    pool.worker("w")
    for job in ("job.yaml", "run/job.yaml"):
        assert pool.client("submit", tmp_path / job, "--data", tmp_path, "--json", "--quiet")["digest"] == digest
    assert pool.client("status", 1, "--json")["state"] == "COMPLETED"


@pytest.mark.parametrize("augment", ["{shift: 2}", "{flip: true}", "{crop: 3}", "{shift: 1, flip: true, crop: 2}"])
def test_augmentation_is_the_same_for_any_pool(train, tmp_path, augment):
    plain = train(as_idx(tmp_path, pictures((3, 9, 8))))
    data = (IDX % "")[:-1] + f", augment: {augment}}}"
    digest = train(data, "--workers", 1)
    assert digest == train(data, "--workers", 3) != plain
    assert digest != train(data, "--set", "seed=4")


def test_normalised_and_augmented_samples_are_the_same_on_every_instruction_set(coppice, train, tmp_path):
    as_idx(tmp_path, pictures((3, 9, 8)))
    digest = train((IDX % "")[:-1] + ", normalize: standard, augment: {shift: 1, flip: true, crop: 2}}")
    plain = coppice("run", tmp_path / "job.yaml", "--json", "--quiet", COPPICE_ISA="baseline")
    assert plain["isa"] == "baseline" and plain["digest"] == digest


def test_submit_uploads_files_of_any_format(cluster, train, tmp_path):
    parts = pictures()
    pool = cluster("ipc")
    pool.worker("a")
    pool.worker("b")
    data = as_folder(tmp_path, parts, encoded)[:-1] + ", normalize: standard, augment: {shift: 1, flip: true}}"
    digest = train(data)
    status = pool.client("submit", tmp_path / "job.yaml", "--data", tmp_path, "--json", "--quiet")
    assert status["state"] == "COMPLETED" and status["digest"] == digest


def test_coordinator_offers_the_data_sets_in_its_folder(cluster, train, tmp_path):
    offered = tmp_path / "offered"
    offered.mkdir()
    parts = [(x.reshape(len(x), -1)[:, :3], y) for x, y in pictures()]
    np.savez(offered / "flat.npz", images=parts[0][0], labels=parts[0][1])
    as_folder(offered / "pets", pictures((3, 9, 8)), encoded)
    pool = cluster("ipc", data=offered)
    pool.worker("a")
    for source in ("pets", "flat.npz"):
        job = tmp_path / "job.yaml"
        job.write_text(JOB.format(data=f"{{source: {source}, validation: 10}}"))
        assert pool.client("submit", job, "--json", "--quiet")["state"] == "COMPLETED"
    job.write_text(JOB.format(data="{source: ../offered/pets}"))
    assert 'no data set "../offered/pets"' in pool.client("submit", job, "--quiet", status=2).stderr


BAD_CSV = {
    "a,b,label\n1,2,0\n3,4\n": "train.csv:3: 2 fields: expected 3, as in the first line",
    "a,b,label\n1,2,0\n3,four,1\n": 'train.csv:3: column "b" is "four": expected a number',
    "a,b,label\n1,2,0\n\n3,,1\n": 'train.csv:4: column "b" is "": expected a number',
    "1,2,0\n3,4,1.5\n": 'train.csv:2: column 3 is "1.5": expected a label, a whole number from 0',
    "1,2,0\n3,1e39,1\n": 'train.csv:2: column 2 is "1e39": expected a 32-bit number',
    "a,b,label\n": "train.csv is an empty data set",
    "": "train.csv is an empty data set",
    "1,2,0\n3,4,0\n": "train.csv: all labels are 0: expected at least two classes",
    "a,b,label\n1\0,2,0\n": "train.csv is not a text file: it contains a zero byte",
}


def test_bad_csv_is_reported_with_file_and_line(train, tmp_path):
    for text, expected in BAD_CSV.items():
        (tmp_path / "train.csv").write_text(text)
        error = train("{source: csv, train: train.csv, validation: 1}", status=2)
        assert expected in error, (text, error)
    (tmp_path / "train.csv").write_text("width,label\n1,0\n2,1\n")
    error = train("{source: csv, train: train.csv, label: widht}", status=2)
    assert 'train.csv:1: no column is named "widht": did you mean "width"?' in error


def npy(descr="|u1", shape="(4, 2)", order="False", body=b"\0" * 8):
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + body


BAD_NPY = {
    b"PK": "x.npy is not an NPY file",
    npy(body=b"\0" * 7): "x.npy is not a valid NPY file: it is shorter than its shape says",
    npy(body=b"\0" * 9): "x.npy is not a valid NPY file: it is longer than its shape says",
    npy(shape="(4611686018427387904, 4611686018427387904)"): "it is shorter than its shape says",
    npy(descr="<c8", shape="(1, 1)"): 'x.npy has elements of type "<c8"',
    npy(shape="(8,)"): "x.npy has 1 dimensions",
    npy(shape="(2, 4)"): "x.npy has 2 samples, but",
    npy(descr="<f4", shape="(4, 1)", body=struct.pack("<4f", 1, 2, float("nan"), 4)): "element 2 is not a finite 32-bit number (sample 2: nan)",
}


def test_bad_npy_is_reported(train, tmp_path):
    np.save(tmp_path / "y.npy", np.array([0, 1, 1, 0]))
    data = "{source: npy, train: {images: x.npy, labels: y.npy}, validation: 1}"
    for content, expected in BAD_NPY.items():
        (tmp_path / "x.npy").write_bytes(content)
        assert expected in train(data, status=2), content
    np.savez_compressed(tmp_path / "z.npz", u=np.zeros((4, 2), np.uint8), v=np.arange(4))
    assert 'z.npz has no array "images"; it has: u, v' in train("{source: npy, train: z.npz, validation: 1}", status=2)
    whole = (tmp_path / "z.npz").read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "z.npz").write_bytes(whole[:size])
        assert "z.npz is not a valid NPZ file" in train("{source: npy, train: {path: z.npz, images: u, labels: v}}", status=2)


def test_bad_pictures_are_reported_and_leave_no_output(train, tmp_path):
    parts = pictures()
    data = as_folder(tmp_path, parts, encoded)
    one = tmp_path / "train/class-1/0020.img"
    good = one.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    huge = good[:8] + struct.pack(">I", 13) + (head := b"IHDR" + struct.pack(">IIBBBBB", 1000, 1000, 8, 0, 0, 0, 0))
    huge += struct.pack(">I", zlib.crc32(head)) + good[33:]
    jpeg = encoded(parts[0][0][0], "JPEG")
    cases = {
        bytes(damaged): "0020.img is a damaged PNG file: ",
        good[:-20]: "0020.img is a damaged PNG file: it ends early",
        huge: f"0020.img is a damaged PNG file: {len(huge)} bytes cannot hold 1000 x 1000 pixels",
        jpeg[: len(jpeg) // 2]: "0020.img is a damaged JPEG file: ",
        b"GIF89a": "0020.img is neither a PNG nor a JPEG file",
        encoded(parts[0][0][0][:, :7]): "0020.img has 7 x 9 pixels: expected 8 x 9, as in ",
    }
    for content, expected in cases.items():
        one.write_bytes(content)
        error = train(data, "--out", tmp_path / "out", status=2)
        assert expected in error and "train/class-1/0020.img" in error, error
        assert not (tmp_path / "out/model.safetensors").exists()
    one.write_bytes(good)
    (tmp_path / "test/dog").mkdir()
    (tmp_path / "test/dog/1.png").write_bytes(good)
    assert 'test has a class "dog" that ' in train(data, status=2)


def test_jobs_that_do_not_match_their_data_are_refused(train, tmp_path):
    data = as_idx(tmp_path, pictures())
    rows_of_csv([(x.reshape(len(x), -1)[:, :3], y) for x, y in pictures()], tmp_path, ("train.csv", "test.csv"))
    csv = "{source: csv, train: train.csv, test: test.csv, label: 'the \"class\"'%s}"
    assert "data.augment needs images, but samples are flat, of 3 values" in train(csv % ", augment: {flip: true}", status=2)
    assert "data.augment shifts images completely out of view" in train(data[:-1] + ", augment: {shift: 8}}", status=2)
    error = train("{source: csv, train: {images: a, labels: b}}", status=2)
    assert "data.train.images is given, but data.source is csv: expected a path" in error
    assert "data.source is image-folder: expected data.train" in train("{source: image-folder}", status=2)
    assert "data.train.path is given, but data.source is idx: expected images and labels" in train(
        "{source: idx, train: a, test: b}", status=2)
