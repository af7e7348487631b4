"""Bad input gets a clear error and exit status 2, and leaves nothing half-written."""

import gzip
import random
import re
import signal
import socket
import struct
import time

import pytest

from integration_tools import free_port, write_idx

JOB = """name: bad
data: {source: idx, train: {images: a, labels: b}, test: {images: c, labels: d}}
model:
  - linear: {units: 32}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: 5}
optimizer: {sgd: {rate: 0.1}}
"""


def write_data(folder, classes):
    noise = random.Random(1)
    for images, labels, count in (("a", "b", 30), ("c", "d", 9)):
        write_idx(folder / images, (count, 4, 4), noise.randbytes(16 * count))
        write_idx(folder / labels, (count,), [i % classes for i in range(count)])


@pytest.fixture
def data(tmp_path):
    """Writes the data files that JOB names."""
    write_data(tmp_path, 10)


@pytest.fixture
def refused(coppice, data, tmp_path):
    """refused(text, *parts): checks that running the job file `text` exits with 2, prints all `parts`, and leaves no run folder."""

    def check(text, *parts, arguments=()):
        (tmp_path / "job.yaml").write_text(text)
        done = coppice("run", "job.yaml", "--out", "out", *arguments, status=2)
        for part in parts:
            assert part in done.stderr, f"expected {part!r} in: {done.stderr}"
        assert done.stdout == ""
        assert not (tmp_path / "out").exists(), "nothing half-written"
        return done.stderr

    return check


def test_unknown_field_is_reported_with_place_and_nearest_name(refused):
    refused(JOB.replace("optimizer:", "optimiser:"), "job.yaml:9:1", 'unknown field "optimiser"', 'did you mean "optimizer"')
    refused(JOB.replace("- relu", "- rleu"), "job.yaml:5:5", 'did you mean "relu"')
    refused(JOB.replace("rate:", "rte:"), 'optimizer.sgd: unknown field "rte": did you mean "rate"')


def test_field_of_a_later_version_is_reported_as_such(refused):
    refused(JOB.replace("steps: 5", "steps: 5, precision: bf16"), "train.precision: bf16 is not supported by this version")


@pytest.mark.parametrize("p", ["1.0", "-0.1", "yes", "[1]", ""])
def test_dropout_probability_out_of_range_is_refused(refused, p):
    found = {"": "empty", "[1]": "a list"}.get(p, p)
    refused(JOB.replace("p: 0.5", f"p: {p}"), "job.yaml:6:", f"model[2].dropout.p is {found}: expected a number from 0 to below 1")


def test_missing_and_duplicate_fields_are_refused(refused):
    refused(JOB.replace("optimizer: {sgd: {rate: 0.1}}", ""), "optimizer is missing")
    refused(JOB.replace("units: 32", ""), "model[0].linear.units is missing: expected a whole number from 1 to 1048576")
    refused(JOB + "seed: 1\nseed: 2\n", "seed is given twice")
    refused(JOB.replace("steps: 5", "steps: 5, epochs: 1"), "train has both epochs and steps")
    refused(JOB.replace("steps: 5", ""), "train has neither epochs nor steps")


def test_file_that_is_not_yaml_or_missing_is_refused(refused, coppice):
    refused("name: [", "job.yaml:", "not YAML")
    refused("", "is empty")
    assert "nowhere.yaml" in coppice("run", "nowhere.yaml", status=2).stderr


def test_values_of_the_wrong_type_are_refused(refused):
    refused(JOB.replace("units: 32", "units: many"), "model[0].linear.units is many: expected a whole number")
    refused(JOB.replace("units: 32", "units: 3.5"), "model[0].linear.units is 3.5")
    refused(JOB.replace("steps: 5", "steps: 5, last: never"), "train.last is never: expected keep or drop")
    refused(JOB + "seed: 99999999999999999999999\n", "seed is 99999999999999999999999")


def test_network_that_does_not_match_the_data_is_refused(refused):
    refused(JOB.replace("units: 10", "units: 7"), "job.yaml:7:5: model[3] linear: the last layer has 7 outputs, expected 10: the data has 10 classes\n")
    refused(JOB.replace("  - linear: {units: 10}\n", "  - linear: {units: 10}\n  - dropout\n"),
            "job.yaml:8:5: model[4] dropout: it would drop outputs of the network: expected it before the last layer with weights (model[3] linear)\n")
    refused(JOB.replace("  - relu\n", "  - conv2d: {channels: 3, kernel: 2}\n"), "job.yaml:5:5: model[1] conv2d: its input is 32, expected an image (channels x height x width): remove any flatten or linear before it, and use data with images\n")


def test_more_shards_than_samples_in_a_batch_is_refused(refused):
    refused(JOB.replace("steps: 5", "steps: 5, batch: 4, shards: 5"), "train.shards is 5: a batch of 4 samples gives at most 4 shards")


def test_option_set_is_checked_like_the_job_file(coppice, data, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    assert "did you mean \"batch\"" in coppice("run", "job.yaml", "--set", "train.btch=3", status=2).stderr
    assert "expected a whole number from 1 to 65536" in coppice("run", "job.yaml", "--set", "train.batch=0", status=2).stderr
    assert "expected FIELD=VALUE" in coppice("run", "job.yaml", "--set", "train", status=2).stderr


def test_unwritable_output_folder_is_refused(coppice, data, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "file").write_text("")
    done = coppice("run", "job.yaml", "--out", "file/x", status=2)
    assert done.stderr == "coppice run: --out: cannot create folder file/x: Not a directory\n"
    done = coppice("run", "job.yaml", "--out", "file", status=2)
    assert done.stderr == "coppice run: --out: file exists and is not a folder\n"
    done = coppice("run", "job.yaml", "--out", "/proc/run", status=2)
    assert done.stderr == "coppice run: --out: cannot create folder /proc/run: No such file or directory\n"
    assert (tmp_path / "file").read_text() == "" and done.stdout == ""


def test_unknown_command_and_option_get_a_suggestion(coppice):
    assert 'did you mean "submit"' in coppice("sbmit", status=2).stderr
    assert "did you mean --workers" in coppice("run", "x.yaml", "--worker", "2", status=2).stderr
    assert "--workers is \"0\": expected a whole number from 1" in coppice("run", "x.yaml", "--workers", "0", status=2).stderr


# ---- data ----


def idx_job(coppice, tmp_path, status=2):
    (tmp_path / "idx.yaml").write_text(JOB.replace("units: 10", "units: 3"))
    return coppice("run", "idx.yaml", "--out", "out", status=status)


@pytest.fixture
def idx(tmp_path):
    write_data(tmp_path, 3)
    return tmp_path


def test_good_idx_trains_as_a_control(coppice, idx):
    (idx / "a").write_bytes(gzip.compress((idx / "a").read_bytes()))
    assert "digest" in idx_job(coppice, idx, status=0).stdout


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("empty set", lambda d: write_idx(d / "a", (0, 4, 4), []), ["a is an empty data set"]),
        ("empty file", lambda d: (d / "a").write_bytes(b""), ["a is empty"]),
        ("magic", lambda d: (d / "a").write_bytes(b"PK\3\4" + bytes(60)), ["not an IDX file"]),
        ("type", lambda d: (d / "a").write_bytes(struct.pack(">BBBBII", 0, 0, 13, 2, 1, 1) + bytes(4)), ["element type 0x0d"]),
        ("counts differ", lambda d: write_idx(d / "b", (29,), [0, 1] * 14 + [2]), ["30 samples", "29 labels"]),
        ("header lies", lambda d: write_idx(d / "a", (30, 4, 4), bytes(479)), ["479 elements", "480"]),
        ("header lies hugely", lambda d: write_idx(d / "a", (2**31 - 1, 2**30, 2**30), bytes(480)), ["too large"]),
        ("labels out of range", lambda d: write_idx(d / "d", (9,), [0, 1, 2, 3, 0, 1, 2, 0, 1]), ["label 3 is 3", "0 to 2"]),
        ("shapes differ", lambda d: write_idx(d / "c", (9, 2, 8), bytes(144)), ["differ in shape"]),
        ("missing", lambda d: (d / "c").unlink(), ["c"]),
    ],
)
def test_bad_idx_files_are_refused(coppice, idx, name, change, words):
    change(idx)
    done = idx_job(coppice, idx)
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (idx / "out").exists()


@pytest.mark.parametrize("test_dim", [4096, 2])
def test_pack_with_parts_of_different_shapes_is_refused(cluster, tmp_path, test_dim):
    """A lease has room for training samples: larger test samples would not fit, and smaller ones would leave old memory in it."""
    def part(dim):
        return struct.pack("<8I", 1, 1, dim, 0, 0, 64, 0, 0)

    def rows(dim):
        return bytes(64 * dim) + struct.pack("<64i", *(i % 2 for i in range(64)))

    (tmp_path / "sets").mkdir()
    header = b"COPDATA1" + struct.pack("<II", 2, 0) + part(64) + part(test_dim)
    (tmp_path / "sets" / "two.pack").write_bytes(header.ljust(128, b"\0") + rows(64) + rows(test_dim))
    (tmp_path / "job.yaml").write_text(JOB.replace(JOB.splitlines()[1], "data: {source: two.pack}").replace("units: 10", "units: 2"))
    c = cluster(data=tmp_path / "sets")
    c.worker("a")
    refused = c.client("submit", "job.yaml", "--quiet", status=2)
    assert f"differ in shape: u8 (64) and u8 ({test_dim})" in refused.stderr
    assert c.client("jobs", "--json")["jobs"] == [], "the coordinator lives, and has no job"


def test_truncated_and_bit_flipped_gzip_is_refused(coppice, idx):
    whole = gzip.compress((idx / "a").read_bytes())
    (idx / "a").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in idx_job(coppice, idx).stderr
    (idx / "a").write_bytes(whole + b"more")
    assert "4 bytes follow" in idx_job(coppice, idx).stderr
    noise = random.Random(3)
    for _ in range(6):
        flipped = bytearray(whole)
        flipped[noise.randrange(10, len(whole))] ^= 1 << noise.randrange(8)
        (idx / "a").write_bytes(flipped)
        done = idx_job(coppice, idx)
        assert re.match(r"coppice run: \./a(:| is) (the gzip data are damaged \(.+\)|truncated: .+)\n$", done.stderr), done.stderr
        assert done.stdout == "" and not (idx / "out").exists()


# ---- network ----


def test_missing_coordinator_is_reported_after_the_timeout(coppice):
    url = f"tcp://127.0.0.1:{free_port()}"
    began = time.time()
    done = coppice("jobs", "--coordinator", url, "--timeout", "1", status=2)
    assert 1 <= time.time() - began < 4
    assert done.stderr == f"coppice jobs: no coordinator at {url} (waited 1 s; Connection refused): is it running, and is the address right?\n"
    assert "expected tcp://HOST:PORT" in coppice("jobs", "--coordinator", "http://x", status=2).stderr


def test_port_in_use_is_reported(program, processes, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        process = processes(program("coppice-coordinator"), "--listen", url, "--state", tmp_path / "s", stderr=-1)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"coppice-coordinator: cannot listen on {url}: the address is in use by another program\n" in errors


def test_listening_beyond_loopback_needs_insecure(program, processes, tmp_path):
    process = processes(program("coppice-coordinator"), "--listen", "tcp://0.0.0.0:1", "--state", tmp_path / "s", stderr=-1)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2 and "--insecure" in errors


def test_second_coordinator_on_the_same_state_folder_is_refused(cluster, program, processes, tmp_path):
    pool = cluster("ipc")
    second = processes(program("coppice-coordinator"), "--listen", f"ipc://{tmp_path}/other", "--state", pool.state, stderr=-1)
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 2 and f"{pool.state}: another coordinator uses this state folder" in errors


def test_client_and_worker_with_a_wrong_token_are_refused(cluster, coppice, processes, program):
    pool = cluster("tcp")
    done = coppice("jobs", "--coordinator", pool.url, "--token", "wrong", status=2)
    assert "token" in done.stderr
    worker = processes(program("coppice-worker"), "--join", pool.url, "--token", "wrong", stderr=-1)
    _, errors = worker.communicate(timeout=20)
    assert worker.returncode == 2 and "token" in errors
    assert (pool.state / "token").stat().st_mode & 0o777 == 0o600


def test_random_bytes_close_only_their_connection(cluster, coppice, small):
    """The coordinator closes the connection, and serves others as before."""
    pool = cluster("tcp")
    pool.worker("w")
    job = small(steps=1500)
    pool.client("submit", job, "--data", ".", "--no-wait")
    noise = random.Random(5)
    host, port = pool.url.removeprefix("tcp://").split(":")
    for i in range(40):
        with socket.create_connection((host, int(port)), timeout=10) as stranger:
            size = noise.choice([5, 200, 2**62])
            header = b"\x00SP\x00\x00\x30\x00\x00" + struct.pack(">Q", size)  # nng's handshake, and the length of a message
            stranger.sendall(header + noise.randbytes(2000) if i % 2 else noise.randbytes(noise.randrange(8, 2000)))
            assert closes(stranger), f"stranger {i}, {size} bytes"
    status = pool.client("watch", "1", "--json", "--quiet")
    assert status["state"] == "COMPLETED" and status["leases_repeated"] == 0
    assert status["digest"] == coppice("run", job, "--workers", 1, "--json", "--quiet")["digest"]
    assert pool.coordinator.poll() is None and pool.workers["w"].poll() is None


def closes(stranger):
    """Returns whether the other side closes the connection before the timeout, ignoring what it sends."""
    try:
        while stranger.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


# ---- models and checkpoints ----


@pytest.fixture
def trained(coppice, small, tmp_path):
    return coppice("run", small(), "--out", tmp_path / "r", "--workers", 1, "--json", "--quiet"), tmp_path / "r", small


def test_altered_or_truncated_model_is_refused(coppice, trained):
    result, folder, _ = trained
    model = folder / "model.safetensors"
    assert coppice("digest", folder).stdout.strip() == result["digest"]
    whole = model.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    model.write_bytes(flipped)
    assert "was altered" in coppice("digest", folder, status=2).stderr
    for size in (0, 7, 100, len(whole) - 1):
        model.write_bytes(whole[:size])
        assert "model.safetensors" in coppice("digest", folder, status=2).stderr


@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_resume_falls_back_to_the_previous_checkpoint(coppice, trained, victim):
    result, folder, small = trained
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    data = bytearray((newest / victim).read_bytes())
    data[len(data) // 2] ^= 4
    (newest / victim).write_bytes(data)
    done = coppice("run", small(), "--out", folder, "--resume", "auto", "--workers", 1)
    assert f"digest      {result['digest']}" in done.stdout
    assert f"{newest / victim}" in done.stderr and "using the previous checkpoint" in done.stderr


def test_restarted_coordinator_falls_back_to_the_previous_checkpoint(cluster, coppice, small):
    pool = cluster("ipc")
    pool.worker("w")
    job = small(steps=2000)
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.wait_step(200)  # there is a checkpoint every 40 steps
    pool.stop(signal.SIGKILL)
    checkpoints = pool.state / "jobs/1/checkpoints"
    newest = checkpoints / (checkpoints / "latest").read_text().strip() / "model.safetensors"  # a later folder may not have its final name yet
    newest.write_bytes(newest.read_bytes()[:-5])
    pool.start()
    status = pool.client("watch", "1", "--json", "--quiet", "--timeout", "30")
    assert status["state"] == "COMPLETED"
    assert status["digest"] == coppice("run", job, "--workers", 2, "--json", "--quiet")["digest"]
    assert f"{newest} was altered or is truncated; using the previous checkpoint" in (pool.folder / "coordinator.log").read_text()


def test_resume_of_another_job_is_refused(coppice, trained):
    """The run folder does not change by a byte."""
    _, folder, small = trained

    def content():
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = content()
    done = coppice("run", small(), "--set", "seed=8", "--out", folder, "--resume", "auto", status=2)
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert done.stderr == f"coppice run: {newest}/model.safetensors is a checkpoint of another job: its model, training, seed or data differ from this one's: seed is 8, was 7\n"
    assert content() == before


def test_nan_loss_stops_the_job(coppice, small):
    done = coppice("run", small(), "--set", "optimizer.sgd.rate=1000000", "--set", "optimizer.sgd.weight_decay=10", "--set", "model.1.linear.max_norm=0", "--workers", 2, status=1)
    found = re.search(r"training diverged at step (\d+): (.*) is not finite \(shards (\d) to (\d)\)", done.stderr)
    assert found and 1 <= int(found[1]) <= 100 and 0 <= int(found[3]) <= int(found[4]) < 6
    assert re.fullmatch(r"the gradient of layer 1 \(linear\): \d+ of 11322 values of 1\.weight are not finite; .*", found[2])


def test_full_disk_keeps_training_and_older_checkpoints(coppice, small, tmp_path):
    """The k-th write, sync or rename fails with ENOSPC: the run prints a warning and has the right digest, or reports that it could not write."""
    expected = coppice("run", small(), "--out", "a", "--json", "--quiet")["digest"]
    trained = 0
    for k in range(2, 30, 3):
        done = coppice("run", small(), "--out", f"b{k}", status=None, COPPICE_FAIL_IO=k)
        assert "No space left" in done.stderr, f"{k}: {done.stderr}"  # the fault was injected
        if done.returncode == 0:
            trained += 1
            assert "training continues" in done.stderr and expected in done.stdout
            assert (tmp_path / f"b{k}/model.safetensors").read_bytes() == (tmp_path / "a/model.safetensors").read_bytes()
        else:
            assert done.returncode == 1 and not (tmp_path / f"b{k}/model.safetensors").exists()
    assert trained >= 3
