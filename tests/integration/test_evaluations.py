"""Evaluations on a pool: the figures of an ensemble equal those of `coppice eval` in one process, to the last bit, on any workers; a killed
worker, coordinator or client loses nothing."""

import json
import pathlib
import signal
import subprocess

import pytest

MODEL = """
name: {name}
seed: {seed}
data: {{source: idx, train: {{images: train-images, labels: train-labels}}, test: {{images: test-images, labels: test-labels}}{data}}}
model: [{model}]
loss: {loss}
train: {{steps: 30, batch: 50, shards: 6}}
optimizer: {{sgd: {{rate: 0.05, momentum: 0.9}}}}
"""
NETWORK = "dropout: {p: 0.2}, linear: {units: 37}, relu, dropout: {p: 0.5, scope: shard}, linear: {units: 5}"
KINDS = {
    "dropout": NETWORK,
    "spatial_dropout": "conv2d: {channels: 5, kernel: 5, stride: 2}, relu, spatial_dropout: {p: 0.4}, flatten, dropout, linear: {units: 5}",
    "dropconnect": "linear: {units: 33}, relu, dropconnect: {units: 29, draws: 20}, tanh, linear: {units: 5}",
    "gaussian_dropout": "gaussian_dropout: {p: 0.2}, linear: {units: 21}, relu, gaussian_dropout: {p: 0.5, scope: shard}, linear: {units: 5}",
    "alpha_dropout": "linear: {units: 23}, selu, alpha_dropout: {p: 0.1}, linear: {units: 5}",
    "maxout": "dropout: {p: 0.2}, maxout: {units: 19, pieces: 3}, dropout, linear: {units: 5}",
}


def figures(printed):
    """The figures that must not depend on where they are computed: all except times and leases."""
    return {k: v for k, v in printed.items() if k not in ("seconds", "leases_given", "leases_repeated")}


@pytest.fixture
def job(large):
    """job(name, model, seed): writes a job file on patterns of five classes, with 2300 test samples in three slices."""
    folder = large()

    def make(name="net", model=NETWORK, seed=11, loss="cross_entropy", data=""):
        path = folder / f"{name}.yaml"
        path.write_text(MODEL.format(name=name, model=model, seed=seed, loss=loss, data=data))
        return path

    return make


@pytest.fixture
def local(coppice, job, tmp_path):
    """local(run, *options): the figures of a run folder, computed in one process."""

    def call(run, *options, **environment):
        return figures(coppice("eval", run, "--data", tmp_path, *options, "--json", "--quiet", **environment))

    return call


def train(pool, path):
    """Trains the job on the pool; returns its number."""
    return pool.client("submit", path, "--data", path.parent, "--json", "--quiet")["job"]


def start(processes, pool, *arguments):
    """Starts a client in the background, with its output in a pipe."""
    return processes(pool.program("coppice"), "eval", *map(str, arguments), env=pool.environment(), cwd=pool.folder, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE, text=True)


EVALUATIONS = 2**48  # numbers above are for evaluations: eval-1 ...


def wait_leases(pool, least=3):
    """Waits until the first evaluation, which is listed like a job, has had this many leases."""
    pool.wait(lambda: any(j["job"] == EVALUATIONS + 1 and j.get("step", 0) >= least for j in pool.client("jobs", "--json")["jobs"]), f"lease {least} of eval-1")


def finish(client, seconds=120):
    out, err = client.communicate(timeout=seconds)
    assert client.returncode == 0, err
    return json.loads(out.strip().splitlines()[-1])


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_pool_gives_the_figures_of_one_process(cluster, coppice, job, local, tmp_path, kind, workers):
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster(kind)
    for i in range(workers):
        pool.worker(f"w{i}", "--threads", str(1 + i % 2))
    number = train(pool, path)
    for options in (["--ensemble", "1,3,40"], ["--ensemble", "7", "--average", "geometric"], ["--average", "weight-scaling"]):
        printed = pool.client("eval", number, *options, "--json", "--quiet")
        assert printed["leases_given"] >= 3
        assert figures(printed) == local(tmp_path / "run", *options)


def test_every_layer_kind_gives_the_same_figures_on_all_instruction_sets(cluster, coppice, job, local, tmp_path):
    pool = cluster("ipc")
    sets = ["baseline", "avx2"] + ["avx512"] * ("avx512f" in open("/proc/cpuinfo").read())
    for isa in sets:
        pool.worker(isa, COPPICE_ISA=isa)
    seen = []
    for i, (name, model) in enumerate(KINDS.items()):
        path = job(name, model)
        coppice("run", path, "--out", tmp_path / name, "--quiet")
        printed = figures(pool.client("eval", train(pool, path), "--ensemble", "1,12", "--json", "--quiet"))
        isa = sets[i % len(sets)]
        assert printed == local(tmp_path / name, "--ensemble", "1,12", "--workers", 1 + i % 3, COPPICE_ISA=isa), (name, isa)
        seen.append(json.dumps(printed["members"]))
    assert len(set(seen)) == len(KINDS), "another network has other figures"


def test_another_seed_gives_other_figures(coppice, job, local, tmp_path):
    coppice("run", job(), "--out", tmp_path / "a", "--quiet")
    coppice("run", job(seed=12), "--out", tmp_path / "b", "--quiet")
    assert local(tmp_path / "a", "--ensemble", 3)["members"] != local(tmp_path / "b", "--ensemble", 3)["members"]


def test_killed_worker_does_not_change_the_figures(cluster, coppice, processes, job, local, tmp_path):
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster("tcp")
    victim = pool.worker("victim")
    pool.worker("other")
    client = start(processes, pool, train(pool, path), "--ensemble", "1,1000", "--json", "--quiet")
    wait_leases(pool)
    pool.stop_while_busy("victim")
    victim.kill()
    printed = finish(client)
    assert printed["leases_repeated"] >= 1, "a lease was given again"
    assert figures(printed) == local(tmp_path / "run", "--ensemble", "1,1000")
    assert "worker victim disconnected" in (pool.folder / "coordinator.log").read_text()


@pytest.mark.asan
def test_broken_workers_do_not_change_the_figures(cluster, coppice, processes, program, job, local, tmp_path):
    """Two workers return only NaN and so agree. The coordinator recomputes their blocks and exposes them."""
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster("ipc")
    honest = pool.worker("honest")
    number = train(pool, path)
    honest.send_signal(signal.SIGTERM)
    assert honest.wait(30) == 0
    for name in ("broken1", "broken2"):
        log = open(pool.folder / f"{name}.log", "a")
        processes(pathlib.Path(program("coppice")).parent.parent / "tests/liar", pool.url, name, "nan", 1, 0, 1, stdout=log, stderr=log, env=pool.environment())
    client = start(processes, pool, number, "--ensemble", "1,3,40", "--json", "--quiet")

    def found_out():
        listed = pool.client("workers", "--json").get("workers", [])
        return sorted(w["name"] for w in listed if w["state"] == "quarantined") == ["broken1", "broken2"]

    pool.wait(found_out, "two workers in quarantine")
    assert "the coordinator computed" in (pool.folder / "coordinator.log").read_text()
    pool.worker("second")
    assert figures(finish(client)) == local(tmp_path / "run", "--ensemble", "1,3,40")


def test_evaluation_starts_again_after_a_coordinator_restart(cluster, coppice, processes, job, local, tmp_path):
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster("tcp")
    pool.worker("w")
    client = start(processes, pool, train(pool, path), "--ensemble", "2,500", "--json", "--quiet")
    wait_leases(pool)
    pool.stop(signal.SIGKILL)
    pool.start()
    assert figures(finish(client)) == local(tmp_path / "run", "--ensemble", "2,500")
    log = (pool.folder / "coordinator.log").read_text()
    assert [log.count(f"job {n}: RUNNING") for n in ("1", "eval-1", "eval-2")] == [1, 1, 1], "a number is not given twice"


def test_evaluation_ends_with_its_client(cluster, processes, job):
    pool = cluster("ipc")
    pool.worker("w")
    client = start(processes, pool, train(pool, job()), "--ensemble", "100000", "--quiet")
    wait_leases(pool)
    client.kill()
    log = pool.folder / "coordinator.log"
    pool.wait(lambda: "job eval-1: CANCELED: its client disconnected" in log.read_text(), "the end", 20)
    pool.wait(lambda: [j["job"] for j in pool.client("jobs", "--json")["jobs"]] == [1], "nothing to be left of it", 20)
    pool.wait(lambda: pool.client("workers", "--json")["workers"][0]["state"] == "idle", "its worker to be free", 20)


def test_client_is_told_of_a_canceled_evaluation(cluster, processes, job):
    pool = cluster("ipc")
    pool.worker("w")
    client = start(processes, pool, train(pool, job()), "--ensemble", "100000", "--quiet")
    wait_leases(pool)
    pool.client("pause", "eval-1", status=2)
    assert pool.client("cancel", "eval-1", "--json")["state"] == "CANCELED"
    assert client.wait(20) == 1 and "the evaluation was canceled" in client.stderr.read()


def test_rows_are_printed_as_soon_as_they_are_known(cluster, processes, job):
    pool = cluster("ipc")
    pool.worker("w")
    client = start(processes, pool, train(pool, job()), "--ensemble", "1,5,100000", "--quiet")
    lines = [client.stdout.readline().split() for _ in range(3)]
    assert lines[0][:3] == ["MEMBERS", "ERROR", "%"]
    assert [line[0] for line in lines[1:]] == ["1", "5"]
    assert client.poll() is None, "the last row is far away"
    client.kill()


def test_training_continues_during_an_evaluation(cluster, coppice, processes, job, local, tmp_path):
    path = job()
    coppice("run", path, "--out", tmp_path / "run", "--quiet")
    pool = cluster("ipc")
    pool.worker("a")
    pool.worker("b")
    number = train(pool, path)
    long = job("long", seed=5)
    pool.client("submit", long, "--set", "train.steps=5000", "--data", tmp_path, "--no-wait")
    pool.wait_step(5, job=2)
    printed = pool.client("eval", number, "--ensemble", "200", "--json", "--quiet")
    assert pool.status(2)["state"] == "RUNNING", "the evaluation did not wait for it"
    assert figures(printed) == local(tmp_path / "run", "--ensemble", "200")
    expected = coppice("run", long, "--set", "train.steps=5000", "--json", "--quiet")["digest"]
    assert pool.client("watch", 2, "--json", "--quiet")["digest"] == expected


def test_averaging_models_gives_the_same_result_everywhere(cluster, coppice, job, local, tmp_path):
    """Three jobs on the pool, the same three as run folders, and a mixture of both give one result."""
    pool = cluster("ipc")
    pool.worker("a")
    pool.worker("b", "--threads", "3")
    paths = [job("a", seed=1), job("b", KINDS["maxout"], seed=2), job("c", KINDS["spatial_dropout"], seed=3)]
    numbers = [train(pool, path) for path in paths]
    digests = [pool.status(n)["digest"] for n in numbers]
    for path in paths:
        coppice("run", path, "--out", tmp_path / f"run-{path.stem}", "--quiet")
    runs = [tmp_path / f"run-{path.stem}" for path in paths]
    there = pool.client("eval", numbers[0], "--members-from", *numbers[1:], "--ensemble", "1,3", "--json", "--quiet")
    here = local(runs[0], "--ensemble", "1,3", "--members-from", *runs[1:])
    alone = pool.client("eval", "--members-from", *numbers, "--json", "--quiet")
    mixed = pool.client("eval", "--members-from", numbers[0], *runs[1:], "--data", tmp_path, "--json", "--quiet")
    assert [m["digest"] for m in there["models"]] == [m["digest"] for m in here["models"]] == digests
    assert there["members"] == here["members"] and [m["members"] for m in there["members"]] == [1, 3]
    assert alone["members"] == mixed["members"] == here["members"][1:]
    assert alone["members"][0]["disagreement"] > 0
    one = pool.client("eval", numbers[0], "--average", "weight-scaling", "--json", "--quiet")
    assert one["members"][0] == there["members"][0], "the first model alone"
    table = pool.client("eval", "--members-from", *numbers).stdout
    assert all(f"digest {digest}" in table for digest in digests)


def test_plain_evaluation_uses_the_test_part(cluster, job, coppice, tmp_path):
    """If a job evaluates on validation rows, `eval` computes its test part. Other jobs have evaluated it at their end."""
    pool = cluster("ipc")
    pool.worker("a")
    pool.worker("b")
    for loss, data in (("cross_entropy", ", validation: 100"), ("mse", ", validation: 70"), ("cross_entropy", "")):
        number = train(pool, job(loss=loss, data=data))
        there = pool.client("eval", number, "--json", "--quiet")
        pool.client("export", number, "-o", tmp_path / f"{number}.safetensors")
        here = coppice("eval", tmp_path / f"{number}.safetensors", "--data", tmp_path, "--json", "--quiet")
        assert there["on"] == "test" and there["samples"] == 2300
        assert {k: there[k] for k in ("error", "loss", "digest")} == {k: here[k] for k in ("error", "loss", "digest")}


def test_invalid_evaluations_are_refused(cluster, coppice, job, tmp_path):
    pool = cluster("ipc")
    pool.worker("w")
    net = train(pool, job())
    mse = train(pool, job("mse", loss="mse"))
    bare = train(pool, job("bare", "linear: {units: 5}"))
    pool.client("submit", job("long", seed=8), "--set", "train.steps=1000000", "--data", tmp_path, "--no-wait")
    pool.wait_step(1, job=4)
    for arguments, words in [
        ([net, "--ensemble", 0], "expected numbers of members from 1 to 100000"),
        ([mse, "--ensemble", 5, "--average", "geometric"], "its loss is mse, expected cross_entropy"),
        ([bare, "--ensemble", 5], "no random layer"),
        ([4, "--ensemble", 5], "job 4 is RUNNING and has no final weights yet"),
        ([99, "--ensemble", 5], "there is no job 99"),
        ([net, "--members-from", 99], "there is no job 99"),
        ([net, "--members-from", mse], f"job {mse}: an ensemble averages class probabilities"),
        ([net, "--members-from", net, "--ensemble", 3], "--members-from names 2 models"),
        ([net, "--members-from", bare, "--average", "weight-scaling"], "omit --members-from"),
        ([], "expected JOB|MODEL"),
    ]:
        done = pool.client("eval", *arguments, status=2)
        assert words in done.stderr and not done.stdout, (arguments, done.stderr)
    pool.client("cancel", 4)
    pool.client("eval", 4, "--ensemble", 5, status=2)


def test_incompatible_models_are_refused(cluster, job, large, tmp_path):
    pool = cluster("ipc")
    pool.worker("w")
    train(pool, job())
    digits = tmp_path / "digits.yaml"
    digits.write_text("name: digits\ndata: {source: synthetic-digits, samples: 600}\nmodel: [dropout, linear: {units: 10}]\ntrain: {steps: 3}\n"
                      "optimizer: {sgd: {rate: 0.1}}\n")
    pool.client("submit", digits, "--quiet")
    large(seed=12)  # other data of the same shape, in the same files
    again = train(pool, tmp_path / "net.yaml")
    for other, words in ((2, "job 2 takes samples of 1 x 28 x 28 bytes, but job 1 takes samples of 1 x 17 x 18 bytes"), (again, "job 3 was trained on the data set")):
        assert words in pool.client("eval", 1, "--members-from", other, status=2).stderr
        assert words.replace("job ", "") in pool.client("eval", 1, "--members-from", other, "--workers", 1, status=2).stderr
    assert pool.client("eval", 1, "--members-from", again, "--data", tmp_path, "--json")["samples"] == 2300, "--data says on which"


def test_openblas_job_is_evaluated_by_workers_with_the_same_openblas(cluster, coppice, job, local, tmp_path):
    path = job()
    coppice("run", path, "--set", "numerics=openblas", "--out", tmp_path / "run", "--quiet")
    pool = cluster("ipc")
    pool.worker("kept")
    number = pool.client("submit", path, "--data", tmp_path, "--set", "numerics=openblas", "--json", "--quiet")["job"]
    pool.worker("other", OPENBLAS_CORETYPE="Sandybridge")
    assert figures(pool.client("eval", number, "--ensemble", 40, "--json", "--quiet")) == local(tmp_path / "run", "--ensemble", 40)
    assert "worker other gets no lease of job 2" in (pool.folder / "coordinator.log").read_text()


def test_pool_without_workers_is_reported(cluster, job):
    pool = cluster("ipc")
    worker = pool.worker("w")
    number = train(pool, job())
    worker.terminate()
    worker.wait(30)
    done = pool.client("eval", number, "--ensemble", 3, "--timeout", 1, "--quiet", status=1)
    assert "the pool has no workers" in done.stderr
    assert pool.client("eval", number, "--ensemble", 3, "--workers", 1, "--data", pool.folder, "--json")["members"][0]["members"] == 3


@pytest.mark.qemu
def test_arm64_gives_the_same_figures(arm64, cluster, coppice, job, tmp_path):
    path = job()
    pool = cluster("tcp")
    first = pool.worker("x86")
    number = train(pool, path)
    expected = pool.client("eval", number, "--ensemble", "1,6", "--json", "--quiet")
    first.terminate()
    assert first.wait(30) == 0
    pool.worker("arm", command=arm64("coppice-worker"))
    printed = pool.client("eval", number, "--ensemble", "1,6", "--json", "--quiet", timeout=170)
    assert figures(printed) == figures(expected)
