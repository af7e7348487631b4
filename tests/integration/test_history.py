"""Queries of the store: history, compare, spec, submit --from, and jobs by name, state and number."""

import csv
import io
import json
import sqlite3
import subprocess

import pytest


@pytest.fixture
def pool(cluster, small, tmp_path):
    """A coordinator with a worker, and job 1, `small`, which has finished its 100 steps."""
    pool = cluster(data=tmp_path)
    pool.worker("one")
    pool.job = small(100)
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet")
    return pool


def lines(pool, *words):
    done = subprocess.run([pool.program("coppice"), *map(str, words)], capture_output=True, text=True, check=True, env=pool.environment(), cwd=pool.folder)
    return done.stdout.splitlines()


@pytest.mark.parametrize("where", ["job", "run"])
def test_history_lists_each_step_epoch_and_evaluation(pool, coppice, where, tmp_path):
    if where == "run":
        coppice("run", pool.job, "--out", "run")
        source, store = tmp_path / "run", tmp_path / "run/metrics.sqlite"
    else:
        source, store = 1, pool.state / "store.sqlite"
    rows = list(csv.DictReader(io.StringIO(pool.client("history", source, "--csv").stdout)))
    assert [int(r["step"]) for r in rows if r["kind"] == "step"] == list(range(1, 101))
    with sqlite3.connect(store) as db:
        losses = [loss for (loss,) in db.execute("SELECT loss FROM steps ORDER BY step")]
        seen = db.execute("SELECT step, loss, error FROM evaluations ORDER BY step").fetchall()
        epochs = db.execute("SELECT step, train_loss FROM epochs ORDER BY step").fetchall()
    assert [float(r["loss"]) for r in rows if r["kind"] == "step"] == losses
    assert [(int(r["step"]), float(r["loss"]), float(r["error"])) for r in rows if r["kind"] == "test"] == seen
    assert [(int(r["step"]), float(r["loss"])) for r in rows if r["kind"] == "epoch"] == epochs
    assert [int(r["step"]) for r in rows] == sorted(int(r["step"]) for r in rows)
    printed = [json.loads(line) for line in lines(pool, "history", source, "--json")]
    assert [(t["kind"], t["step"], t["loss"]) for t in printed] == [(r["kind"], int(r["step"]), float(r["loss"])) for r in rows]
    people = lines(pool, "history", source)
    assert people[0].split() == ["STEP", "WHAT", "LOSS", "ERROR", "TIME"] and len(people) == 1 + len(seen) + len(epochs)


def test_history_follows_a_job_to_its_end(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--no-wait", "--set", "train.steps=3000", "--set", "seed=3")
    printed = [json.loads(line) for line in lines(pool, "history", 2, "--json", "-f")]
    assert [t["step"] for t in printed if t["kind"] == "step"] == list(range(1, 3001))
    assert pool.status(2)["state"] == "COMPLETED"


def test_compare_shows_the_fields_that_differ_and_the_results(pool, coppice, tmp_path):
    pool.client("submit", "--from", 1, "--set", "seed=2", "--set", "model.1.linear.units=21", "--quiet")
    printed = pool.client("compare", 1, 2, "--json")
    assert {d["field"]: d["values"] for d in printed["differences"]} == {"seed": ["7", "2"], "model.1.linear.units": ["37", "21"]}
    assert [r["digest"] for r in printed["results"]] == [pool.status(n)["digest"] for n in (1, 2)]
    assert [r["error"] for r in printed["results"]] == [pool.status(n)["test_error"] for n in (1, 2)]
    table = pool.client("compare", 1, 2).stdout
    assert "model.1.linear.units  37" in table and pool.status(2)["digest"][:16] in table
    assert max(map(len, table.splitlines())) <= 80
    coppice("run", pool.job, "--out", "run")
    printed = pool.client("compare", 1, tmp_path / "run", "--json")
    assert printed["results"][0]["digest"] == printed["results"][1]["digest"] and printed["differences"] == []


def test_spec_prints_a_job_file_that_gives_the_same_weights(pool, coppice, tmp_path):
    for options in ((), ("--resolved",)):
        (tmp_path / "spec.yaml").write_text(pool.client("spec", 1, *options).stdout)
        summary = coppice("run", "spec.yaml", "--json", "--quiet", "--out", f"again{len(options)}")
        assert summary["digest"] == pool.status(1)["digest"], options
    short, whole = pool.client("spec", 1).stdout, pool.client("spec", 1, "--resolved").stdout
    assert "numerics" not in short and "pinned" not in short and "numerics: portable" in whole
    assert pool.client("spec", tmp_path / "again0").stdout == short


def test_resolved_spec_has_the_pinned_statistics(pool, coppice, tmp_path):
    standard = ("--set", "data.normalize=standard")
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", *standard)
    coppice("run", pool.job, "--out", "run", "--quiet", *standard)
    printed = pool.client("spec", 2, "--resolved", "--json")
    assert printed["pinned"]["mean"] and printed["pinned"] == coppice("spec", "run", "--resolved", "--json")["pinned"]
    assert pool.client("compare", 2, tmp_path / "run", "--json")["differences"] == []


def test_spec_of_a_file_in_a_run_suggests_the_run_folder(pool, coppice, tmp_path):
    coppice("run", pool.job, "--out", "run", "--quiet")
    for command in ("spec", "history", "compare"):
        others = ["run"] if command == "compare" else []
        assert "run/job.yaml is a file of a run: pass the run folder, run" in coppice(command, "run/job.yaml", *others, status=2).stderr
    assert "small.yaml is a file: expected a run folder or a job" in coppice("spec", "./small.yaml", status=2).stderr
    assert "run folder nowhere/at-all does not exist" in coppice("spec", "nowhere/at-all", status=2).stderr


def test_job_without_evaluation_shows_no_evaluated_part(pool, coppice, tmp_path):
    (tmp_path / "a.csv").write_text("".join(f"{i},{3 * i},{i % 5}\n" for i in range(60)))
    never = ("--set", "data={source: csv, train: a.csv}")
    pool.client("submit", pool.job, "--quiet", *never)
    assert "evaluated_on" not in pool.status(2) and pool.status(1)["evaluated_on"] == "test"
    assert "evaluated_on" not in coppice("run", pool.job, "--json", "--quiet", *never)


def test_data_set_in_use_is_not_removed(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--no-wait", "--set", "train.steps=10000000")
    name = pool.client("data", "list", "--json")["sets"][0]["name"]
    assert "is in use by 1 unfinished job" in pool.client("data", "rm", name, status=2).stderr
    pool.client("cancel", 2)


def test_submit_from_a_job_runs_it_again(pool):
    again = pool.client("submit", "--from", "small", "--json", "--quiet")
    assert again["digest"] == pool.status(1)["digest"] and again["job"] == 2
    other = pool.client("submit", "--from", 1, "--set", "seed=2", "--json", "--quiet")
    assert other["digest"] != again["digest"]
    done = pool.client("submit", status=2)
    assert "expected JOB.yaml or --from JOB" in done.stderr
    done = pool.client("submit", pool.job, "--from", 1, status=2)
    assert "expected JOB.yaml or --from JOB" in done.stderr


def test_submit_from_a_run_uploads_its_data(pool, coppice, tmp_path):
    run = coppice("run", pool.job, "--set", "seed=5", "--out", "run", "--json", "--quiet")
    again = pool.client("submit", "--from", tmp_path / "run", "--json", "--quiet")
    assert again["digest"] == run["digest"]


def test_commands_accept_job_names_and_numbers(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", "--set", "seed=3")
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", "--set", "name=other")
    assert pool.client("status", "small", "--json")["job"] == 2  # the newest job of this name
    assert pool.client("digest", "small").stdout == pool.client("digest", 2).stdout
    assert pool.client("history", "other", "--csv").stdout == pool.client("history", 3, "--csv").stdout
    done = pool.client("status", "nobody", status=2)
    assert 'there is no job named "nobody"' in done.stderr
    assert pool.client("rm", "other").stdout == "job 3 removed\n"


def test_jobs_can_be_filtered_by_name_state_and_number(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", "--set", "name=other")
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", "--set", "seed=3")
    numbers = lambda *words: [j["job"] for j in pool.client("jobs", *words, "--json")["jobs"]]
    assert numbers() == [3, 2, 1] and numbers("--name", "small") == [3, 1]
    assert numbers("--limit", 2) == [3, 2] and numbers("--name", "small", "--limit", 1) == [3]
    assert numbers("--state", "completed") == [3, 2, 1] and numbers("--state", "failed") == []
    done = pool.client("jobs", "--state", "complete", status=2)
    assert "did you mean COMPLETED?" in done.stderr


def test_table_of_jobs_fits_and_shows_what_they_wait_for(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--quiet", "--set", "name=" + "long" * 30)
    pool.workers["one"].terminate()
    pool.workers["one"].wait()
    number = pool.client("submit", pool.job, "--data", tmp_path, "--no-wait", "--set", "seed=9").stdout
    assert number == "3\n"  # only the number, for scripts
    pool.wait(lambda: pool.status(3).get("waiting_for"), "a job that waits")
    table = lines(pool, "jobs")
    assert max(map(len, table)) <= 80, table
    assert "WAITS FOR" in table[0] and "workers" in table[1]
    assert "% test" in table[2] and "…" in table[2]
    assert max(map(len, lines(pool, "workers") + lines(pool, "data", "list"))) <= 80


def test_submit_uploads_the_same_files_that_plan_and_run_read(cluster, small, tmp_path):
    pool = cluster()  # without --data
    pool.worker("one")
    job = small(40)
    subprocess.run([pool.program("coppice"), "plan", job], check=True, capture_output=True)
    done = pool.client("submit", job, "--quiet", "--json")
    assert done["state"] == "COMPLETED"
    listed = pool.client("data", "list", "--json")["sets"]  # uses the same coordinator as other commands
    assert [s["bytes"] > 620 for s in listed if "digest" in s] == [True]


def test_status_shows_leases_only_with_the_option(pool):
    assert "leases" not in pool.client("status", 1).stdout
    assert "leases" in pool.client("status", 1, "--verbose").stdout


def test_workers_of_a_running_job_are_never_shown_as_idle(pool, tmp_path):
    pool.client("submit", pool.job, "--data", tmp_path, "--no-wait", "--set", "train.steps=100000", "--set", "train.batch=8", "--set", "seed=3")
    pool.wait_step(100, 2)
    for _ in range(40):
        worker = pool.client("workers", "--json")["workers"][0]
        assert (worker["state"], worker["job"]) == ("computing", 2)
        status = pool.status(2)
        assert status["workers"] == 1 and not status.get("waiting_for")
    pool.client("cancel", 2)
    pool.wait(lambda: pool.client("workers", "--json")["workers"][0]["state"] == "idle", "an idle worker")


def test_evaluations_do_not_use_up_job_numbers(pool, tmp_path):
    pool.client("eval", 1, "--ensemble", "3", "--quiet")
    table = lines(pool, "jobs")
    assert [row.split()[0] for row in table[1:]] == ["eval-1", "1"]
    assert pool.client("status", "eval-1", "--json")["state"] == "COMPLETED"
    assert pool.client("submit", "--from", 1, "--no-wait").stdout == "2\n"


def test_inspect_accepts_a_replayed_shard(coppice, small, tmp_path):
    from safetensors import safe_open

    small(20)
    coppice("run", "small.yaml", "--out", "run")
    coppice("replay", "run", "--step", 3, "--shard", 2, "-o", "r.safetensors")
    printed = coppice("inspect", "r.safetensors", "--json")
    with safe_open(tmp_path / "r.safetensors", "np") as file:
        assert {t["name"]: t["shape"] for t in printed["tensors"]} == {name: list(file.get_tensor(name).shape) for name in file.keys()}
        for t in printed["tensors"]:
            values = file.get_tensor(t["name"]).astype(float)
            if "mean" in t:
                assert abs(t["mean"] - values.mean()) < 1e-9 and (t["min"], t["max"]) == (values.min(), values.max())
    shown = coppice("inspect", "r.safetensors").stdout
    assert "shard 2 of step 3, replayed" in shown and "mean_grad.1.weight" in shown
