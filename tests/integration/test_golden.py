"""Tests the main promise: the job and its seed decide the weights, bit for bit; the pool decides only when.

Runs one job (examples/golden.yaml: unequal shards, a short last batch, several blocks of k, more than an epoch) in every possible way."""

import pathlib
import signal
import subprocess
import time

import pytest

GOLDEN = "2b8b816b89737afb698289803af1e3adc076c8246730027afc87657630d79342"
SMALL = "eb0e8b03d75a366acfa7ce9e2fa1a145ddcde02b7ad3bae7a622be1c46dc4dbe"  # of the fixture `small` with 100 steps

BF16 = "c9eccf500b4cfb0f852c9eab26471bad3c9417bb4b0493083145448dd68017ba"  # of the same job with train.wire bf16
SMALL_BF16 = "5ee968303a3127261848a5bdc9414145462cf51d60407be565921ca7828cf06c"


@pytest.fixture
def job(root):
    return root / "examples/golden.yaml"


def run(coppice, job, mnist, *arguments, **environment):
    return coppice("run", job, "--data", mnist, "--json", "--quiet", *arguments, **environment)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_one_process_gives_the_golden_digest(coppice, job, mnist, workers):
    result = run(coppice, job, mnist, "--workers", workers)
    assert result["digest"] == GOLDEN
    assert result["steps"] == 650 and result["workers"] == workers


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_bf16_on_the_wire_has_its_own_digest(coppice, job, mnist, workers):
    result = run(coppice, job, mnist, "--workers", workers, "--set", "train.wire=bf16")
    assert result["digest"] == BF16
    assert result["test_error"] < 0.1


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_bf16_has_one_digest_on_every_instruction_set(coppice, small, isa):
    result = coppice("run", small(), "--workers", 2, "--json", "--quiet", "--set", "train.wire=bf16", COPPICE_ISA=isa)
    assert result["isa"] == isa and result["digest"] == SMALL_BF16


def test_bf16_has_one_digest_in_a_pool_of_all_transports(cluster, job, mnist):
    """Memory shared with the coordinator, tcp, several threads, a restart, and every block computed twice."""
    pool = cluster("tcp", mnist)
    pool.worker("shared")
    pool.worker("wire", "--no-shm")
    pool.worker("threads", "--no-shm", "--threads", "2")
    pool.client("submit", job, "--set", "train.wire=bf16", "--set", "audit=1", "--no-wait")
    pool.wait_step(260)  # there is a checkpoint every 200 steps
    pool.stop(signal.SIGKILL)
    pool.start()
    status = pool.client("watch", "1", "--json", "--quiet", "--timeout", "60")
    assert status["digest"] == BF16 and status["blocks_audited"] > 0
    paths = {w["name"]: w["path"] for w in pool.client("workers", "--json")["workers"]}
    assert paths == {"shared": "shm", "wire": "tcp", "threads": "tcp"}
    log = pool.client("logs", 1).stdout
    assert "quarantine" not in log and "cannot compute" not in log


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_forced_instruction_set_gives_the_golden_digest(coppice, job, mnist, isa):
    flags = open("/proc/cpuinfo").read()
    if isa == "avx512" and "avx512f" not in flags:
        pytest.skip("this CPU has no AVX-512")
    result = run(coppice, job, mnist, "--workers", 2, COPPICE_ISA=isa)
    assert result["isa"] == isa
    assert result["digest"] == GOLDEN


def test_small_job_has_one_digest_on_every_instruction_set(coppice, small):
    for isa in ("baseline", "avx2"):
        result = coppice("run", small(), "--workers", 2, "--json", "--quiet", COPPICE_ISA=isa)
        assert result["isa"] == isa
        assert result["digest"] == SMALL


def test_another_seed_gives_another_digest(coppice, job, mnist):
    assert run(coppice, job, mnist, "--set", "seed=20142")["digest"] != GOLDEN


def test_another_number_of_shards_gives_another_digest(coppice, job, mnist):
    """Another number of shards changes the order of sums and the masks, so it is another job."""
    assert run(coppice, job, mnist, "--set", "train.shards=5")["digest"] != GOLDEN


def test_a_flipped_mask_bit_or_swapped_shards_give_another_digest(program, coppice, small):
    """A single-threaded program without coordinator and leases gives the same digest. With an injected fault, it gives another."""
    one_thread = pathlib.Path(program("coppice")).parent.parent / "tests/one_thread"
    job = small()

    def digest(*fault):
        return subprocess.run([one_thread, job, *fault], capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    assert digest() == SMALL
    assert len({SMALL, digest("flip"), digest("swap")}) == 3


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_cluster_gives_the_golden_digest(cluster, job, mnist, kind, workers):
    pool = cluster(kind, mnist)
    for i in range(workers):
        pool.worker(f"w{i}")
    status = pool.client("submit", job, "--json", "--quiet")
    assert status["digest"] == GOLDEN and status["state"] == "COMPLETED"
    shards = [w["shards"] for w in pool.client("workers", "--json")["workers"]]
    assert len(shards) == workers and all(s > 0 for s in shards), "every worker has computed"
    assert pool.client("digest", "1").stdout.strip() == GOLDEN
    assert pool.stop() == 0


def test_uploaded_data_and_threads_give_the_golden_digest(cluster, job, mnist):
    """The coordinator has no data, so the client uploads them. One worker computes with three threads."""
    pool = cluster("ipc")
    pool.worker("w", "--threads", "3")
    assert pool.client("submit", job, "--data", mnist, "--json", "--quiet")["digest"] == GOLDEN


def test_killed_worker_does_not_change_the_digest(cluster, job, mnist):
    pool = cluster("tcp", mnist)
    victim = pool.worker("victim")
    pool.worker("other")
    pool.client("submit", job, "--no-wait")
    pool.wait_step(50)
    pool.stop_while_busy("victim")
    victim.kill()
    status = pool.client("watch", "1", "--json", "--quiet")
    assert status["digest"] == GOLDEN
    assert status["leases_repeated"] >= 1, "a lease was given again"


def test_joining_and_draining_workers_do_not_change_the_digest(cluster, job, mnist):
    pool = cluster("ipc", mnist)
    first = pool.worker("first")
    pool.client("submit", job, "--no-wait")
    pool.wait_step(30)
    pool.worker("second")
    pool.worker("third")
    pool.wait_step(100)
    first.terminate()
    assert first.wait(30) == 0
    pool.client("drain", "second")
    assert pool.workers["second"].wait(30) == 0
    assert pool.client("watch", "1", "--json", "--quiet")["digest"] == GOLDEN


def test_killed_coordinator_does_not_change_the_digest(cluster, job, mnist):
    pool = cluster("tcp", mnist)
    pool.worker("a")
    pool.worker("b")
    pool.client("submit", job, "--no-wait")
    pool.wait_step(260)  # there is a checkpoint every 200 steps
    pool.stop(signal.SIGKILL)
    pool.start()
    status = pool.client("watch", "1", "--json", "--quiet", "--timeout", "30")
    assert status["digest"] == GOLDEN
    assert "recovered after a restart" in (pool.folder / "coordinator.log").read_text()


def test_pausing_a_job_does_not_change_the_digest(cluster, job, mnist):
    pool = cluster("ipc", mnist)
    pool.worker("a")
    pool.client("submit", job, "--no-wait")
    pool.wait_step(100)
    pool.client("pause", "1")
    pool.wait(lambda: pool.status()["state"] == "PAUSED", "the pause")
    assert pool.status()["step"] < 650
    pool.client("resume", "1")
    assert pool.client("watch", "1", "--json", "--quiet")["digest"] == GOLDEN


def test_resumed_run_has_the_golden_digest(program, processes, coppice, job, mnist, tmp_path):
    process = processes(program("coppice"), "run", job, "--data", mnist, "--workers", "1", "--out", tmp_path / "r", "--quiet")
    while not (tmp_path / "r/checkpoints/step-00000200").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    result = run(coppice, job, mnist, "--workers", 2, "--out", tmp_path / "r", "--resume", "auto")
    assert result["digest"] == GOLDEN
    assert result["steps"] == 650


def test_openblas_job_trains_and_is_pinned(coppice, small):
    """The bits differ from portable-1. The job is pinned to this OpenBLAS, and this is reported."""
    result = coppice("run", small(), "--set", "numerics=openblas", "--workers", 2, "--json", "--quiet")
    assert result["numerics"].lower().startswith("openblas") and result["test_error"] < 0.1


@pytest.mark.qemu
def test_arm64_gives_the_same_digest(arm64, small, tmp_path):
    import json
    import subprocess

    command = [*arm64("coppice"), "run", str(small()), "--workers", "2", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["isa"] == "neon" and result["digest"] == SMALL


@pytest.mark.qemu
def test_arm64_worker_joins_in_mid_job(arm64, cluster, coppice, small):
    job = small(steps=3000)
    expected = coppice("run", job, "--workers", 2, "--json", "--quiet")["digest"]
    pool = cluster("tcp")
    pool.worker("x86")
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.wait_step(20)
    pool.worker("arm", command=arm64("coppice-worker"))
    status = pool.client("watch", "1", "--json", "--quiet", timeout=170)
    shards = {w["name"]: w["shards"] for w in pool.client("workers", "--json")["workers"]}
    assert shards["arm"] > 0, "the arm64 worker has computed"
    assert status["digest"] == expected
