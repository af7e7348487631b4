#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, tests/fuzz/corpus/<target>/seed-*: a valid input of each kind, as small as possible.

  ./dev exec python3 tests/fuzz/seeds.py

Data files are made by common libraries (NumPy, Pillow, safetensors), messages by protoc from the schema. Add new inputs here. The
input of a crash is added to the corpus unchanged."""

import gzip
import hashlib
import io
import pathlib
import struct
import subprocess

import numpy
import safetensors.numpy
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

JOB = """name: "n" seed: 7 data { source: "tiny.pack" } model { dropout { p: 0.5 } } model { linear { units: 2 max_norm: 2 } }
loss { cross_entropy { } } train { steps: 3 batch: 4 shards: 2 } optimizer { sgd { rate: 0.1 momentum: 0.9 } } """


def proto(kind, text):
    """Encodes a message of proto/api.proto or proto/wire.proto from its text form."""
    schema = "proto/wire.proto" if kind.startswith("coppice.wire") else "proto/api.proto"
    done = subprocess.run(["protoc", f"--encode={kind}", "-I.", schema], cwd=ROOT, input=text.encode(), capture_output=True, check=True)
    return done.stdout


def piece(data):
    return struct.pack("<H", len(data)) + data


def hexes(data):
    return "".join(f"\\{byte:03o}" for byte in data)


# ---- data files ----


def pack(kind=1, dims=(2,), count=4):
    """A pack, COPDATA1 (common/data/data.h): `count` samples, the same for training and test."""
    def pad(data):
        return data + bytes(-len(data) % 64)

    sample_bytes = int(numpy.prod(dims)) * (4 if kind == 2 else 1)
    part = struct.pack("<8I", kind, len(dims), *(*dims, 0, 0)[:3], count, 0, 0)
    samples = pad(bytes(0 if kind == 2 else 31 * i % 256 for i in range(sample_bytes * count)))
    labels = pad(struct.pack(f"<{count}I", *(i % 2 for i in range(count))))
    return pad(b"COPDATA1" + struct.pack("<II", 2, 0) + part + part) + 2 * (samples + labels)


def idx(*dims, kind=8, data=None):
    count = int(numpy.prod(dims))
    return bytes([0, 0, kind, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + (data or bytes(i % 2 for i in range(count)))


def saved(function, *arguments, **options):
    out = io.BytesIO()
    function(out, *arguments, **options)
    return out.getvalue()


def npy_files():
    for name in ("u1", "f4", "<f8", ">i2"):
        yield saved(numpy.save, numpy.arange(8, dtype=name).reshape(4, 2))
    yield saved(numpy.save, numpy.asfortranarray(numpy.arange(16, dtype="u1").reshape(4, 2, 2)))
    yield saved(numpy.save, numpy.arange(4 * 5 * 5 * 3, dtype="u1").reshape(4, 5, 5, 3))
    yield saved(numpy.save, numpy.arange(8, dtype="<i8").reshape(4, 2))


def npz_files():
    arrays = {"images": numpy.arange(8, dtype="u1").reshape(4, 2), "labels": numpy.array([0, 1, 1, 0], "u1")}
    yield saved(numpy.savez, **arrays)
    yield saved(numpy.savez_compressed, **arrays)
    keras = {"x_train": numpy.arange(8, dtype="u1").reshape(4, 2), "y_train": numpy.array([[0], [1], [1], [0]], "f8")}
    yield saved(numpy.savez, **keras, x_test=keras["x_train"], y_test=keras["y_train"])


def picture(mode, kind, **options):
    pixels = bytes(i * 29 % 251 for i in range(8 * 8 * {"L": 1, "P": 1, "RGB": 3, "RGBA": 4, "1": 1, "I;16": 2, "LA": 2}[mode]))
    image = Image.frombytes("L", (8, 8), pixels[:64]).convert("1") if mode == "1" else Image.frombytes(mode, (8, 8), pixels)
    return saved(image.save, kind, **options)


def png_files():
    yield from (picture(mode, "PNG") for mode in ("L", "P", "RGB", "RGBA", "1", "I;16", "LA"))
    yield picture("L", "PNG", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 5
    yield picture("RGB", "PNG", exif=exif)


def jpeg_files():
    yield picture("L", "JPEG", quality=10)
    yield picture("RGB", "JPEG", quality=10)
    yield picture("RGB", "JPEG", quality=10, progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield picture("L", "JPEG", quality=10, exif=exif)


NAMES = b"id;a;b;species\r1;0,5;2;rose\r2;1,5;3;iris\r3;2,5;4;lily\r"
CSV = b"\"a\",\"b \"\"c\"\"\",label\r\n1,2.5e3,0\r\n-3,.25,1\n\n 7 ,8,2\n"


def data_seeds():
    yield "csv", [CSV, b"\xef\xbb\xbf1,2,0\n3,4,1\n", b"a,b,label\n1,nan,x\n", NAMES, b"sep=\t\r\n1,5\t2\t0\r\n3\t4,5\t1\r\n",
                  gzip.compress(CSV[:20], mtime=0) + gzip.compress(CSV[20:], mtime=0)]
    yield "idx", [idx(4, 2), idx(4, 2, 2), idx(4, kind=9), gzip.compress(idx(4, 2), mtime=0), idx(4, 2, kind=13, data=bytes(32))]
    yield "npy", [*npy_files(), *npz_files()]
    yield "png", list(png_files())
    yield "jpeg", list(jpeg_files())
    yield "pack", [pack(), pack(2), pack(dims=(1, 2, 2), count=2)]
    yield "samples", [CSV, NAMES, gzip.compress(CSV, mtime=0), idx(4, 2), next(npy_files()), next(npz_files()), picture("L", "PNG"), picture("L", "JPEG", quality=10)]


# ---- jobs, models, state ----


def weights(dtype, **metadata):
    shapes = {"1.weight": (2, 1, 2, 2), "1.bias": (2,), "3.weight": (10, 2), "3.bias": (10,)}
    return safetensors.numpy.save({name: numpy.ones(shape, dtype) for name, shape in shapes.items()}, metadata or None)


def job_seeds():
    files = sorted((ROOT / "examples").glob("*.yaml"), key=lambda path: path.stat().st_size)
    yield "job", [*(path.read_bytes() for path in files[:6]), proto("coppice.api.SubmitRequest", f"job {{ {JOB} }}")[3:]]
    yield "json", [b'{"average":"arithmetic","members":[{"members":1,"error":0.05,"error_se":1.0e-2}],"samples":137,"models":[]}\n',
                   b'{"average":"weight-scaling","members":[{"members":1}],"digest":"a\\"b"}\n']
    yield "model", [weights("float32"), weights("float16"), weights("float32", **{"coppice.step": "1"})]
    state = (b'{\n  "step": 7,\n  "digest": "0",\n  "model_xxh3": "0123456789abcdef",\n  "optimizer_xxh3": "0123456789abcdef",\n'
             b'  "train_loss_sum_bits": "0000000000000000",\n  "train_samples": 28,\n  "train_correct": 0,\n'
             b'  "seconds_bits": "0000000000000000",\n  "best_error_bits": "3fd0000000000000",\n  "best": false,\n'
             b'  "state_xxh3": "0123456789abcdef"\n}\n')
    adam = {f"{name}.0.{part}": numpy.ones(shape, "f4") for name in ("m", "v") for part, shape in (("weight", (2, 2)), ("bias", (2,)))}
    yield "checkpoint", [b"\x80" + state, b"\x00" + state, b"\x81" + weights("float32"), b"\x82" + safetensors.numpy.save(adam),
                         b"\x03step-00000007\n"]
    digest, whole = b"2" * 64, pack()
    manifest = struct.pack("<Q", len(whole)) + hashlib.sha256(whole).digest() + b"tiny"
    yield "pair", list(pairs())
    yield "state", [b"\x00" + digest + b" 384 4 4 2 1 2 0 0 tiny set\n" + digest + b" 384 4 4 2 1 2 0 0 again\n", b"\x01" + manifest,
                    b"\x02", b"\x02" + struct.pack("<H", 4096) + piece(b"\x0d\0\0\0\1"), b"\x02" + struct.pack("<H", 28) + piece(b"\0\0\0\3")]


# ---- pairs ----


def pairs():
    """Inputs of fuzz_pair.c: the number of the pair, then the bytes from which its two sides are drawn."""
    u8, f32, wide, picture = bytes([0, 0, 3]), bytes([1, 0, 0]), bytes([0, 0, 7]), bytes([0, 1, 0, 1, 1])  # type, rank, sides
    job = bytes([1, 0, 0, 1, 1, 1, 0, 1])
    for train, test in ((u8, wide), (wide, u8), (u8, f32), (picture, u8), (u8, u8)):
        yield bytes(3) + train + test + b"\1" + job
    for kind in range(1, 6):
        for other in (u8, f32, wide):
            yield bytes([kind, 0, 0]) + u8 + u8 + b"\1" + b"\0" + other + other + b"\1" + job + job + bytes(range(8))


# ---- messages ----

HELLO = ('major: 1 minor: 1 build: "b" role: WORKER name: "w" threads: 1 isa: "avx2" self_test: "' + 32 * "\\000"
         + '" arithmetic: "portable-1" fingerprint: "f"')
MESSAGES = {
    "Hello": (1, HELLO), "Welcome": (2, 'major: 1 minor: 1 build: "b" worker: 1 session: 2 name: "w" heartbeat_ms: 500'),
    "Heartbeat": (3, "worker: 1 session: 2 lease: 3"), "HeartbeatReply": (4, "drain: true cancel_lease: 3"),
    "Pull": (5, 'worker: 1 result { kind: TRAIN lease: 1 job: 1 step: 1 first: 0 count: 1 loss: 0.5 samples: 2 failure: "no" }'),
    "Lease": (6, "kind: TRAIN lease: 1 job: 1 step: 1 first: 0 count: 3 batch: 4"), "Nothing": (7, "retry_ms: 5 drain: true"),
    "Failure": (8, 'code: 3 text: "no"'), "Call": (9, 'method: 3 major: 1 minor: 1 token: "t"'), "Answer": (10, "method: 3"),
}


def frame(number, header):
    """A frame header without hashes; the target computes them."""
    head = struct.pack("<IHHII4QQQ", 0x57504F43, 1, number, len(header), 0, 0, 0, 0, 0, 0, 0) + header
    return head + bytes(-len(head) % 64)


def wire(name, text=None):
    return proto(f"coppice.wire.{name}", MESSAGES[name][1] if text is None else text)


def worker_message(name, text=None, tensor=None, right_size=False, other=False):
    flags = (1 if tensor is not None else 0) | (2 if right_size else 0) | (4 if other else 0)
    return bytes([MESSAGES[name][0], flags]) + piece(wire(name, text)) + (piece(tensor) if tensor is not None else b"")


def sessions():
    hello, pull = worker_message("Hello"), worker_message("Pull", "")
    result = "result { kind: TRAIN loss: 0.5 correct: 1 compute_ns: 5 }"
    good, too, lie = (worker_message("Pull", result, bytes(4), True), worker_message("Pull", result, bytes(4), True, True), worker_message("Pull", result, b"\0\0\x80\x3f", True, True))
    two = hello + pull + worker_message("Hello", HELLO.replace('"w"', '"v"')) + pull
    yield hello + pull + 10 * good
    yield two + 4 * (good + too)
    yield two + 4 * (good + lie)
    yield hello + pull
    yield hello + pull + good + good
    yield hello + pull + worker_message("Pull", "result { kind: TRAIN loss: 0.5 }", b"\0\0\xc0\x7f", True)
    yield hello + pull + worker_message("Pull", "result { kind: TRAIN loss: 0.5 samples: 3 }", b"\1\2\3")
    yield hello + pull + worker_message("Pull", 'result { kind: ENSEMBLE failure: "no memory" }')
    yield hello + worker_message("Hello", HELLO + " control: true") + worker_message("Heartbeat", "lease: 1 draining: true") + pull
    yield hello + worker_message("Hello", HELLO.replace('"w"', '"v"')) + pull + good + worker_message("Pull", "goodbye: true")
    yield worker_message("Hello", HELLO.replace("WORKER", "CLIENT")) + worker_message("Nothing")


REQUESTS = {
    "SubmitRequest": (1, f"job {{ {JOB} }} idempotency: \"0123456789abcdef\""), "ListJobsRequest": (2, "limit: 3"), "GetJobRequest": (3, "job: 1 with_job: true"),
    "WatchJobRequest": (4, "job: 1 version: 1 hold_ms: 10"), "ControlJobRequest": (5, "job: 1 action: PAUSE"),
    "LogsRequest": (6, "job: 1 after: 0 hold_ms: 10"), "ListWorkersRequest": (7, ""), "DrainWorkerRequest": (8, 'name: "w"'),
    "ExportModelRequest": (9, "job: 1"), "ListDataRequest": (10, ""), "RemoveDataRequest": (14, 'name_or_digest: "tiny"'),
    "EvaluateRequest": (15, "job: 1"), "InfoRequest": (16, ""), "HistoryRequest": (20, "job: 1"),
    "StartEvaluationRequest": (21, 'jobs: 1 counts: 1 counts: 5 average: "arithmetic" key: "0123456789abcdef"'),
    "WatchEvaluationRequest": (22, 'key: "0123456789abcdef" version: 1 hold_ms: 10'),
}


def asked(name, text=None):
    number, good = REQUESTS[name]
    return bytes([number]) + piece(proto(f"coppice.api.{name}", good if text is None else text))


def calls():
    yield from (asked(name) for name in REQUESTS)
    submit = asked("SubmitRequest")
    yield submit + submit + b"".join(asked(n) for n in ("ListJobsRequest", "GetJobRequest", "WatchJobRequest", "LogsRequest", "HistoryRequest"))
    yield submit + b"".join(asked("ControlJobRequest", f"job: 1 action: {a}") for a in ("PAUSE", "RESUME", "CANCEL", "REMOVE"))
    yield asked("SubmitRequest", f"job {{ {JOB} }} dry_run: true")
    whole = pack()
    digest, chunk = hashlib.sha256(whole).hexdigest(), hexes(hashlib.sha256(whole).digest())
    offer = bytes([11]) + piece(proto("coppice.api.OfferDataRequest", f'name: "t" digest: "{digest}" bytes: {len(whole)} chunks: "{chunk}"'))
    put = bytes([12]) + piece(proto("coppice.api.PutChunkRequest", f'digest: "{digest}" index: 0')) + piece(whole)
    commit = bytes([13]) + piece(proto("coppice.api.CommitDataRequest", f'digest: "{digest}"'))
    yield offer + put + commit + asked("ListDataRequest") + asked("RemoveDataRequest", 'name_or_digest: "t"')


def lease(text, rows, flags=0xF0, parts=b""):
    return b"\0" + bytes([flags, rows]) + piece(wire("Lease", text)) + parts


def answers():
    yield lease("kind: TRAIN lease: 1 job: 1 step: 1 first: 0 count: 3 batch: 4", 4)
    yield lease("kind: TRAIN lease: 1 job: 1 step: 1 first: 0 count: 2 batch: 3", 2) + lease("kind: EVALUATE lease: 2 job: 1 count: 4", 4, 0x60)
    yield lease("kind: ENSEMBLE lease: 2 job: 1 count: 2 member: 3 members: 2", 2)
    yield lease("kind: ENSEMBLE lease: 2 job: 1 count: 2 member: 0 members: 1 whole: true", 2)
    yield lease("kind: TRAIN lease: 1 job: 1 step: 1 first: 0 count: 3 batch: 4", 4, 0x78, piece(b"\n\1n"))
    status = 'job: 1 name: "n" state: RUNNING step: 3 epoch: 0.5 train_loss: 0.1 digest: "d" created: "c"'
    for name, number, text in (("ListJobs", 2, f"jobs {{ {status} }} jobs {{ {status} }}"), ("GetJob", 3, f"status {{ {status} }} job {{ {JOB} }}"),
                               ("Logs", 6, 'events { id: 1 time: "t" level: "info" text: "x" job: 1 } last: 1'), ("ListData", 10, 'sets { name: "t" digest: "d" bytes: 9 shape: 1 shape: 2 }'),
                               ("OfferData", 11, "complete: false missing: 0 missing: 3"), ("History", 20, 'name: "n" train { step: 1 loss: 0.5 } evaluations { step: 1 loss: 0.5 error: 0.1 } on: "test"'),
                               ("WatchEvaluation", 22, 'evaluation: 2 state: COMPLETED ensemble { average: "arithmetic" members { members: 1 error: 0.5 } samples: 3 }')):
        yield b"\1" + bytes([number]) + piece(proto(f"coppice.api.{name}Answer", text))


def message_seeds():
    yield "frame", [frame(number, wire(name)) for name, (number, _) in MESSAGES.items()]
    yield "session", list(sessions())
    yield "call", list(calls())
    yield "answer", list(answers())


def main():
    for target, inputs in (*data_seeds(), *job_seeds(), *message_seeds()):
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for number, data in enumerate(inputs, 1):
            (folder / f"seed-{number:02}").write_bytes(data)
        print(f"{target}: {len(inputs)} seeds, {sum(map(len, inputs))} bytes")


if __name__ == "__main__":
    main()
