"""Lying workers as real processes: they are found and get no more work, their damage is undone, and nobody else is suspected."""

import json
import pathlib
import re
import signal
import subprocess

import pytest


@pytest.fixture
def pool(cluster, program):
    """A cluster that can start liars: pool.liar(name, how, probability, after)."""
    pool = cluster("ipc")
    tool = pathlib.Path(program("coppice")).parent.parent / "tests/liar"

    def liar(name, how="gradient", probability=1.0, after=0, seed=1):
        log = open(pool.folder / f"{name}.log", "a")
        pool.workers[name] = pool.processes(tool, pool.url, name, how, probability, after, seed, stdout=log, stderr=log, env=pool.environment())
        return pool.workers[name]

    pool.liar = liar
    return pool


@pytest.fixture
def clean(coppice, tmp_path):
    """clean(job): the digest of the job without liars."""
    return lambda job: coppice("run", job, "--data", tmp_path, "--workers", "1", "--quiet", "--json", "--out", tmp_path / "clean", "--overwrite")["digest"]


def workers(pool):
    listed = subprocess.run([pool.program("coppice"), "workers", "--json"], capture_output=True, text=True, check=True, env=pool.environment())
    answer = json.loads(listed.stdout.strip().splitlines()[-1])
    return {w["name"]: w for w in answer.get("workers", [answer])}


def train(pool, job, *options):
    return pool.client("submit", job, "--data", job.parent, "--quiet", "--json", *options)


@pytest.mark.asan
@pytest.mark.parametrize("how", ["gradient", "loss"])
def test_audit_1_keeps_all_lies_out_of_the_weights(pool, small, clean, how):
    job = small(300)
    pool.liar("liar", how, probability=0.2, seed=5)
    pool.worker("first")
    pool.worker("second")
    pool.wait(lambda: len(workers(pool)) == 3, "three workers")
    status = train(pool, job, "--set", "audit=1")
    assert status["digest"] == clean(job)
    assert status["rollbacks"] == 0 and status["blocks_audited"] > 0
    seen = workers(pool)
    assert seen["liar"]["state"] == "quarantined"
    assert "step" in seen["liar"]["evidence"] and "digest" in seen["liar"]["evidence"]
    assert {seen[name]["state"] for name in ("first", "second")} == {"idle"}
    assert "worker liar computed wrong results and is quarantined" in pool.client("logs", 1).stdout


def test_audit_finds_a_liar_when_gradients_are_bf16(pool, small, tmp_path, coppice):
    job = small(200)
    bf16 = ["--set", "train.wire=bf16"]
    pool.liar("liar", probability=0.5, after=20)
    pool.worker("honest")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    status = train(pool, job, *bf16, "--set", "audit=1")
    alone = coppice("run", job, "--data", tmp_path, "--workers", "1", "--quiet", "--json", *bf16)
    assert status["digest"] == alone["digest"]
    assert workers(pool)["liar"]["state"] == "quarantined"
    assert workers(pool)["honest"]["state"] == "idle"


def test_coordinator_decides_between_two_workers(pool, small, clean):
    job = small(200)
    pool.liar("liar", probability=0.5, after=20)
    pool.worker("honest")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    status = train(pool, job, "--set", "audit=1")
    assert status["digest"] == clean(job)
    assert workers(pool)["liar"]["state"] == "quarantined"
    assert workers(pool)["honest"]["state"] == "idle"


def until_one_goes_back(attempt):
    """Repeats `attempt` until a job is rolled back. The choice of audited results is secret, so a liar may be found before it does harm."""
    for number in range(1, 9):
        status = attempt(number, f"liar{number}")
        assert status["rollbacks"] <= 1
        if status["rollbacks"]:
            return number, status
    raise AssertionError("eight liars were found before they did any harm")


def test_rollback_undoes_the_damage_of_a_liar(pool, small, clean):
    """Only a twentieth is audited, so lies enter the weights and checkpoints before the liar is found."""
    job = small(1500)
    pool.worker("honest")

    def attempt(_, name):
        pool.liar(name, after=100)
        pool.wait(lambda: {name, "honest"} <= workers(pool).keys(), "both workers")
        status = train(pool, job, "--set", "audit=0.05", "--set", "checkpoint.every=20")
        assert workers(pool)[name]["state"] == "quarantined"
        assert status["digest"] == clean(job)
        return status

    number, _ = until_one_goes_back(attempt)
    assert "rolling back to a checkpoint" in pool.client("logs", number).stdout


def test_late_liar_costs_only_steps_after_it_joined(pool, small, clean):
    job = small(4000)
    pool.worker("honest")

    def attempt(number, name):
        options = ["--set", "audit=0.1", "--set", "checkpoint.every=50", "--set", "checkpoint.keep=1000"]
        pool.client("submit", job, "--data", job.parent, "--no-wait", *options)
        pool.wait_step(200, number)
        pool.liar(name)
        status = pool.client("watch", number, "--json", "--quiet")
        assert status["digest"] == clean(job)
        return status

    number, _ = until_one_goes_back(attempt)
    log = pool.client("logs", number).stdout
    returned = int(re.search(r"continuing from step (\d+)", log).group(1))
    assert returned >= 200 and returned % 50 == 0


def test_three_nan_results_of_a_worker_cause_quarantine(pool, small, clean):
    job = small(400)
    pool.liar("liar", "nan", probability=0.1)
    pool.worker("honest")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    status = train(pool, job)
    assert status["digest"] == clean(job)
    seen = workers(pool)
    assert seen["liar"]["strikes"] == 3 and seen["liar"]["state"] == "quarantined"
    assert seen["honest"].get("strikes", 0) == 0


@pytest.mark.asan
@pytest.mark.parametrize("how", ["lease", "form"])
def test_malformed_results_are_strikes_and_do_not_harm_the_job(pool, small, clean, how):
    job = small(400)
    pool.liar("liar", how, probability=0.2)
    pool.worker("honest")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    status = train(pool, job)
    assert status["digest"] == clean(job)
    seen = workers(pool)
    assert seen["liar"]["strikes"] == 3 and seen["liar"]["state"] == "quarantined"
    assert seen["honest"].get("strikes", 0) == 0
    assert "worker liar sent a wrong result" in pool.client("logs", 1).stdout


@pytest.mark.parametrize("audit", [0, 1])
def test_workers_that_cannot_compute_a_job_do_not_fail_it(pool, small, clean, audit):
    """Three of five workers have too little memory for the job: they get no more of its work, and are not suspected."""
    job = small(400)
    small_ones = ["small1", "small2", "small3"]
    for name in small_ones:
        pool.liar(name, "cannot")
    pool.worker("good1")
    pool.worker("good2")
    pool.wait(lambda: len(workers(pool)) == 5, "five workers")
    pool.client("submit", job, "--data", job.parent, "--no-wait", "--set", f"audit={audit}", "--set", "train.steps=100000")
    pool.wait(lambda: all(workers(pool)[name].get("unable") == 1 for name in small_ones), "three workers that are taken off the job")
    listed = pool.client("workers").stdout
    assert "small2 cannot compute job 1 and gets none of its leases until it joins again" in listed
    pool.client("cancel", 1)
    status = train(pool, job, "--set", f"audit={audit}")
    assert status["digest"] == clean(job)
    assert all(workers(pool)[name].get("strikes", 0) == 0 for name in workers(pool))
    assert re.search(r"worker small\d cannot compute job 2.*out of memory for the gradient", pool.client("logs", 2).stdout)


def test_two_broken_workers_that_agree_do_not_fail_a_job(pool, small, clean):
    """Both workers compute only NaN, but the job has not diverged."""
    job = small(200)
    pool.liar("broken1", "nan")
    pool.liar("broken2", "nan")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    pool.client("submit", job, "--data", job.parent, "--no-wait")
    pool.wait(lambda: all(w["state"] == "quarantined" for w in workers(pool).values()), "two workers in quarantine")
    pool.worker("honest")
    status = pool.client("watch", 1, "--json", "--quiet")
    assert status["digest"] == clean(job)
    assert workers(pool)["broken1"]["strikes"] == 3 and workers(pool)["honest"].get("strikes", 0) == 0


def test_quarantine_outlives_the_session(pool, small):
    job = small(200)
    liar = pool.liar("liar")
    pool.worker("honest")
    pool.wait(lambda: len(workers(pool)) == 2, "two workers")
    train(pool, job, "--set", "audit=1")
    liar.send_signal(signal.SIGTERM)
    assert liar.wait(30) == 0
    pool.worker("liar")  # an honest worker with this name is also quarantined, because only the name is known
    pool.wait(lambda: "liar" in workers(pool), "its return")
    assert workers(pool)["liar"]["state"] == "quarantined"
    train(pool, job, "--set", "seed=8")
    assert workers(pool)["liar"].get("shards", 0) == 0


def test_audit_in_one_process_does_not_change_the_digest(coppice, small, clean, tmp_path):
    job = small(100)
    for workers_there in (1, 3):
        audited = coppice("run", job, "--data", tmp_path, "--workers", workers_there, "--set", "audit=1", "--quiet", "--json", "--out", tmp_path / f"a{workers_there}")
        assert audited["digest"] == clean(job)
