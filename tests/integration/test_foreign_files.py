"""Files of other programs: Coppice reads every array layout that NumPy writes, and recognizes files of the wrong format."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from integration_tools import write_idx


def digest(coppice, name, *arguments):
    return coppice("inspect", name, *arguments, "--json")["digest"]


# ---- arrays ----

LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "big-endian fortran": lambda x: np.asfortranarray(x.astype(x.dtype.newbyteorder(">"))),
}
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "?"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_in_each_numpy_layout_gives_the_same_data(coppice, tmp_path, kind, layout):
    """Compares with the same values that NumPy converted to f4 in C order."""
    random, labels = np.random.default_rng(4), np.arange(12) % 3
    for shape in ((12, 5), (12, 4, 3), (12, 3, 4, 5)):
        x = (random.normal(size=shape) * 40).astype("f2").clip(0 if kind[0] == "u" else -100, 100).astype(kind)
        np.savez(tmp_path / "plain.npz", images=np.ascontiguousarray(x.astype("f4")), labels=labels)
        np.savez(tmp_path / "other.npz", images=LAYOUTS[layout](x), labels=LAYOUTS[layout](labels.astype("f2" if kind == "?" else kind)))
        assert digest(coppice, "other.npz") == digest(coppice, "plain.npz"), shape


def test_16_bit_floats_are_converted_as_by_numpy(coppice, tmp_path):
    """Tests every finite 16-bit float."""
    x = np.arange(65536, dtype="u2").view("f2")
    x = x[np.isfinite(x)].reshape(-1, 4)
    for name, values in (("half", x), ("single", x.astype("f4"))):
        np.savez(tmp_path / f"{name}.npz", images=values, labels=np.arange(len(x)) % 2)
    assert digest(coppice, "half.npz") == digest(coppice, "single.npz")


def test_predictions_are_the_same_for_each_array_layout(coppice, tmp_path):
    x = np.random.default_rng(5).normal(size=(12, 5)).astype("f2")
    (tmp_path / "job.yaml").write_text("name: n\ndata: {source: npy, train: plain.npz}\nmodel: [linear: {units: 3}]\n"
                                       "train: {steps: 5, batch: 4, shards: 1}\noptimizer: {sgd: {rate: 0.1}}\n")
    np.savez(tmp_path / "plain.npz", images=x.astype("f4"), labels=np.arange(12) % 3)
    coppice("run", "job.yaml", "--quiet", "--out", "run")
    np.save(tmp_path / "plain.npy", x.astype("f4"))
    expected = coppice("predict", "run", "--input", "plain.npy").stdout
    for layout in LAYOUTS.values():
        np.save(tmp_path / "x.npy", layout(x))
        assert coppice("predict", "run", "--input", "x.npy").stdout == expected


@pytest.mark.parametrize("labels, sentence", [
    (np.eye(3)[np.arange(12) % 3], "has 2 dimensions: expected 1 (labels), whole numbers (for one column per class, store numpy.argmax(y, axis=1))"),
    (np.arange(12) - 1, "label 0 is -1: expected labels, whole numbers from 0 to 65535"),
    (np.arange(12) * 70000, "label 1 is 70000: expected labels"), (np.arange(12) / 2, "label 1 is 0.5: expected labels"),
    (np.where(np.arange(12) == 4, np.nan, 1).astype("f2"), "label 4 is nan: expected labels"),
    (np.array(list("abc") * 4), 'has elements of type "<U1": expected bytes, whole numbers or floats'),
    (np.arange(12).astype(object), 'has elements of type "|O"'),
], ids=["one-hot", "below", "above", "fraction", "nan", "text", "object"])
def test_invalid_labels_are_reported(coppice, tmp_path, labels, sentence):
    np.savez(tmp_path / "x.npz", images=np.zeros((12, 2)), labels=labels)
    error = coppice("inspect", "x.npz", status=2).stderr
    assert "x.npz(labels)" in error and sentence in error, error


# ---- wrong formats ----


def zipped(content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("train.csv", content)
    return out.getvalue()


def picture(kind):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 200, 30)).save(out, kind)
    return out.getvalue()


def array():
    out = io.BytesIO()
    np.save(out, np.zeros((4, 2)))
    return out.getvalue()


TABLE = b"a,b,label\n" + b"".join(b"%d,%d,%d\n" % (i, i * i, i % 2) for i in range(20))
KINDS = {
    "zip": (zipped(TABLE), "a ZIP archive (.zip, .npz, .xlsx)"), "npy": (array(), "an NPY file"), "png": (picture("PNG"), "a PNG picture"),
    "jpeg": (picture("JPEG"), "a JPEG picture"), "gif": (picture("GIF"), "a GIF picture"), "bmp": (picture("BMP"), "a BMP picture"),
    "tiff": (picture("TIFF"), "a TIFF picture"), "webp": (b"RIFF\x1a\0\0\0WEBPVP8 " + bytes(20), "a WebP picture"),
    "bzip2": (bz2.compress(TABLE), "a bzip2 file"), "xz": (lzma.compress(TABLE), "an xz file"),
    "parquet": (b"PAR1" + bytes(30) + b"PAR1", "a Parquet file"), "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file"),
    "pickle": (pickle.dumps(np.zeros((4, 2)), protocol=4), "a Python pickle"), "utf-16": (TABLE.decode().encode("utf-16"), "text in UTF-16 (save it as UTF-8)"),
    "utf-16le": (TABLE.decode().encode("utf-16-le"), "text in UTF-16"), "html": (b"<!DOCTYPE html>\n<html><b>404, not, found</b></html>\n", "an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS"),
    "text": (TABLE, "a text file"), "empty": (b"", "empty"),
}
READERS = {
    "csv": ("{source: csv, train: %s}", {"text", "empty"}), "npy": ("{source: npy, train: {images: %s, labels: %s}}", {"npy"}),
    "npz": ("{source: npy, train: %s}", {"zip"}), "idx": ("{source: idx, train: {images: %s, labels: %s}, test: {images: %s, labels: %s}}", set()),
    "image-folder": ("{source: image-folder, train: set}", {"png", "jpeg"}),
}


@pytest.mark.parametrize("reader, kind", [(reader, kind) for reader in READERS for kind in KINDS if kind not in READERS[reader][1]])
def test_file_of_another_format_is_recognized(coppice, tmp_path, reader, kind):
    content, name = KINDS[kind]
    (tmp_path / "file").write_bytes(content)
    for folder in ("a", "b"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "file").write_bytes(content)
    (tmp_path / "job.yaml").write_text(f"name: n\ndata: {READERS[reader][0].replace('%s', 'file')}\nmodel: [linear: {{units: 2}}]\n"
                                       "train: {steps: 1}\noptimizer: {sgd: {rate: 0.1}}\n")
    error = coppice("plan", "job.yaml", status=2).stderr
    assert "file is n" in error and f"it is {name}" in error or kind == "empty" and "file is empty" in error, error


def test_text_that_starts_like_a_picture_is_read_as_text(coppice, tmp_path):
    (tmp_path / "x.csv").write_bytes(TABLE.replace(b"a,b", b"BMI,b"))
    assert coppice("inspect", "x.csv", "--json")["shape"] == [2]


@pytest.mark.parametrize("name", ["x.csv", "X.CSV", "x.txt", "x.data", "x.TSV", "x.csv.GZ"])
def test_inspect_accepts_the_usual_table_file_names(coppice, tmp_path, name):
    (tmp_path / "plain.csv").write_bytes(TABLE)
    (tmp_path / name).write_bytes(gzip.compress(TABLE) if name.endswith("GZ") else TABLE)
    assert digest(coppice, name) == digest(coppice, "plain.csv")


def test_inspect_error_mentions_data_and_models(coppice, tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped(TABLE))
    error = coppice("inspect", "x.zip", status=2).stderr
    assert "it is a ZIP archive" in error and "expected .csv, .tsv" in error
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/0.png").write_bytes(picture("PNG"))
    assert "expected the files of MNIST or CIFAR, or one folder of PNG or JPEG files per class" in coppice("inspect", "flat", status=2).stderr


# ---- folders of pictures ----


@pytest.fixture
def pictures(tmp_path):
    """Makes set/train and set/test with the classes a and b and four pictures each."""
    for part in ("train", "test"):
        for name, grey in (("a", 20), ("b", 200)):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("L", (4, 4), grey + i).save(folder / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("left", ["train/a/Thumbs.db", "train/b/desktop.ini", "train/a/.DS_Store", "train/a/._0.png", "train/__MACOSX/a/._0.png", "train/README.txt"])
def test_files_of_file_managers_are_ignored(coppice, pictures, tmp_path, left):
    (tmp_path / "job.yaml").write_text("name: n\ndata: {source: image-folder, train: set/train}\nmodel: [linear: {units: 2}]\n"
                                       "train: {steps: 5, batch: 4, shards: 1}\noptimizer: {sgd: {rate: 0.1}}\n")
    before = digest(coppice, "set")
    (pictures / left).parent.mkdir(parents=True, exist_ok=True)
    (pictures / left).write_bytes(b"\0\1not a picture")
    assert digest(coppice, "set") == before
    coppice("run", "job.yaml", "--quiet", "--out", "run")
    assert coppice("predict", "run", "--input", "set/train/a").stdout.count(".png") == 4


def test_test_part_may_have_only_one_class(coppice, pictures):
    for i in range(4):
        (pictures / f"test/b/{i}.png").unlink()
    (pictures / "test/b").rmdir()
    parts = coppice("inspect", "set", "--json")["parts"]
    assert [part["samples"] for part in parts] == [8, 4]


def test_folder_inside_a_class_folder_is_refused(coppice, pictures):
    (pictures / "train/a/more").mkdir()
    assert "set/train/a/more is a folder: expected the images of a class directly in set/train/a" in coppice("inspect", "set", status=2).stderr


# ---- tables that could be misread ----

ROWS = [(round(0.37 * i - 2, 2), round(7.5 - 0.21 * i, 2), i * 3 // 24) for i in range(24)]


def rows(line="{a},{b},{c}", start=0):
    return "".join(line.format(i=i + start, a=a, b=b, c=c) + "\n" for i, (a, b, c) in enumerate(ROWS))


@pytest.mark.parametrize("text, column", [
    (",a,b,label\n" + rows("{i},{a},{b},{c}"), '1 ("")'), ("Unnamed: 0,a,b,label\n" + rows("{i},{a},{b},{c}"), '1 ("Unnamed: 0")'),
    ('"","a","b","label"\n' + rows('"{i}",{a},{b},"{c}"', 1), '1 ("")'), (rows("{i},{a},{b},{c}"), "1"),
    ("a,id,b,label\n" + rows("{a},{i},{b},{c}", 1), '2 ("id")'),
], ids=["pandas", "pandas-twice", "r", "no-header", "middle"])
def test_index_column_gives_a_warning(coppice, tmp_path, text, column):
    (tmp_path / "x.csv").write_text(text)
    (tmp_path / "plain.csv").write_text("a,b,label\n" + rows())
    error = coppice("inspect", "x.csv").stderr
    assert f"x.csv: column {column} contains line numbers" in error, error
    number = column.split()[0]
    assert f"--drop {number}" in error
    assert coppice("inspect", "x.csv", "--drop", number).stderr == "" == coppice("inspect", "plain.csv").stderr
    assert digest(coppice, "x.csv", "--drop", number) == digest(coppice, "plain.csv")


def test_header_of_numbers_is_not_read_as_a_sample(coppice, tmp_path):
    """DataFrame(x).to_csv(index=False) writes such a header."""
    (tmp_path / "x.csv").write_text("0,1,2\n" + rows())
    (tmp_path / "plain.csv").write_text(rows())
    assert digest(coppice, "x.csv") == digest(coppice, "plain.csv")
    (tmp_path / "whole.csv").write_text("0,1,2\n" + "".join(f"{i * i},{i % 5},{i % 3}\n" for i in range(12)))
    assert coppice("inspect", "whole.csv", "--json")["parts"][0]["samples"] == 13


@pytest.mark.parametrize("labels, sentence", [
    (np.arange(12) % 3 + 1, "1 of 4 classes, 0 to 3, have no training sample; the first of them is 0"),
    (np.arange(12) % 3 * 10, "18 of 21 classes, 0 to 20, have no training sample; the first of them is 1"), (np.arange(12) % 3, None)])
def test_labels_with_gaps_give_a_warning(coppice, tmp_path, labels, sentence):
    (tmp_path / "x.csv").write_text("a,b,label\n" + "".join(f"{i / 7},{-i / 3},{c}\n" for i, c in enumerate(labels)))
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(1).normal(size=(12, 2)), labels=labels)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", (12, 2, 2), bytes(48))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", (12,), labels.astype("u1").tobytes())
    for name in ("x.csv", "x.npz", "."):
        error = coppice("inspect", name).stderr
        assert sentence in error if sentence else error == "", error
