"""Run folders: by default no older run is deleted, and a folder remembers the location of its data."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_run_gets_a_numbered_folder(coppice, small, tmp_path):
    small(20)
    first = coppice("run", "small.yaml", "--json")
    before = contents(tmp_path / "runs/small")
    second = coppice("run", "small.yaml", "--set", "seed=8", "--json")
    third = coppice("run", "small.yaml")
    assert (first["out"], second["out"]) == ("runs/small", "runs/small-2")
    assert contents(tmp_path / "runs/small") == before
    assert "runs/small already contains a run: this one is written to runs/small-3" in third.stderr
    assert coppice("digest", "runs/small", "--json")["digest"] == first["digest"]
    assert coppice("digest", "runs/small-2", "--json")["digest"] == second["digest"] != first["digest"]


def test_named_folder_with_a_run_is_refused_with_three_suggestions(coppice, small, tmp_path):
    small(20)
    first = coppice("run", "small.yaml", "--out", "kept", "--json")
    before = contents(tmp_path / "kept")
    done = coppice("run", "small.yaml", "--set", "seed=8", "--out", "kept", status=2)
    assert "kept already contains a run" in done.stderr
    assert all(way in done.stderr for way in ("--out DIR", "--resume auto", "--overwrite")), done.stderr
    assert contents(tmp_path / "kept") == before
    assert coppice("run", "small.yaml", "--out", "kept", "--resume", "auto", "--json")["digest"] == first["digest"]
    other = coppice("run", "small.yaml", "--set", "seed=8", "--out", "kept", "--overwrite", "--json")
    assert other["digest"] != first["digest"] and other["out"] == "kept"
    assert coppice("digest", "kept", "--json")["digest"] == other["digest"]


def test_run_killed_at_its_start_has_deleted_nothing(coppice, program, small, tmp_path):
    small(20)
    first = coppice("run", "small.yaml", "--json")
    long = small(100000).rename(tmp_path / "long.yaml")
    process = subprocess.Popen([program("coppice"), "run", long, "--quiet"], cwd=tmp_path)
    while not (tmp_path / "runs/small-2/job.yaml").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert coppice("digest", "runs/small", "--json")["digest"] == first["digest"]


def test_resume_auto_continues_the_newest_run_of_a_name(coppice, small):
    small(20)
    coppice("run", "small.yaml")
    second = coppice("run", "small.yaml", "--set", "seed=8", "--json")
    again = coppice("run", "small.yaml", "--set", "seed=8", "--resume", "auto", "--json")
    assert again["out"] == "runs/small-2" and again["digest"] == second["digest"]


def test_resume_auto_finds_the_newest_run_beyond_a_gap(coppice, small, tmp_path):
    small(20)
    for seed in (7, 8, 9):
        coppice("run", "small.yaml", "--set", f"seed={seed}")
    shutil.rmtree(tmp_path / "runs/small-2")
    assert coppice("run", "small.yaml", "--set", "seed=9", "--resume", "auto", "--json")["out"] == "runs/small-3"


def test_numbered_folder_of_another_job_is_never_used(coppice, small, tmp_path):
    """runs/small-2 may be the second run of `small` or the first run of `small-2`; its job file decides."""
    small(20)
    coppice("run", "small.yaml")
    assert coppice("run", "small.yaml", "--set", "name=small-2", "--json")["out"] == "runs/small-2"
    assert coppice("run", "small.yaml", "--resume", "auto", "--json")["out"] == "runs/small"
    assert coppice("run", "small.yaml", "--set", "seed=8", "--json")["out"] == "runs/small-3"
    before = contents(tmp_path / "runs")
    for way in (("--overwrite",), ("--resume", "auto")):
        done = coppice("run", "small.yaml", "--set", "name=small-3", *way, status=2)
        assert 'runs/small-3 contains a run of the job "small", not of "small-3"' in done.stderr
    assert contents(tmp_path / "runs") == before


@pytest.mark.parametrize("name", ["job.yaml", "model.safetensors"])
def test_run_never_replaces_foreign_files(coppice, small, tmp_path, name):
    small(20)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    for options in ((), ("--overwrite",), ("--resume", "auto")):
        done = coppice("run", "small.yaml", "--out", "mine", *options, status=2)
        assert f"mine contains {name}, which was not written by a run" in done.stderr
    assert contents(tmp_path / "mine") == {(tmp_path / "mine" / name).relative_to(tmp_path / "mine"): b"mine"}


def test_checkpoints_of_another_program_are_kept(coppice, small, tmp_path):
    """Other programs have a folder of that name, too: it is not deleted, and nothing is written into it."""
    small(20)
    (tmp_path / "mine/checkpoints").mkdir(parents=True)
    (tmp_path / "mine/checkpoints/epoch-3.pt").write_text("mine")
    before = contents(tmp_path / "mine")
    for options in ((), ("--overwrite",), ("--resume", "auto")):
        done = coppice("run", "small.yaml", "--out", "mine", *options, status=2)
        assert "mine contains checkpoints, which was not written by a run" in done.stderr
    assert contents(tmp_path / "mine") == before


def test_resume_without_a_checkpoint_reports_the_start_at_step_0(coppice, small):
    job = small(20)
    first = coppice("run", job, "--out", "run", "--resume", "auto")
    assert "run has no checkpoint: training starts at step 0" in first.stderr
    again = coppice("run", job, "--out", "run", "--resume", "auto")
    assert "no checkpoint" not in again.stderr


def test_two_runs_never_write_to_one_folder(coppice, program, small, tmp_path):
    long = small(100000).rename(tmp_path / "long.yaml")
    process = subprocess.Popen([program("coppice"), "run", long, "--out", "busy", "--quiet"], cwd=tmp_path)
    while not (tmp_path / "busy/job.yaml").exists():
        assert process.poll() is None
        time.sleep(0.01)
    small(20)
    for options in (("--overwrite",), ("--resume", "auto")):
        done = coppice("run", "small.yaml", "--out", "busy", *options, status=2)
        assert "another run is writing to busy" in done.stderr
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_overwrite_and_resume_exclude_each_other(coppice, small):
    small(20)
    done = coppice("run", "small.yaml", "--overwrite", "--resume", "auto", status=2)
    assert "--resume continues a run, --overwrite deletes it: choose one" in done.stderr


def test_run_folder_remembers_the_location_of_its_data(coppice, program, small, tmp_path):
    """The data are found by the job file's folder or by --data, from any directory, for a run, a checkpoint or a model file."""
    small(40)
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    (tmp_path / "small.yaml").rename(work / "small.yaml")
    coppice("run", "work/small.yaml", "--data", ".", "--out", "by-option")
    for part in ("train", "test"):
        for kind in ("images", "labels"):
            os.rename(tmp_path / f"{part}-{kind}", work / f"{part}-{kind}")
    expected = coppice("eval", "by-option", "--data", "work", "--json")
    coppice("run", "work/small.yaml", "--out", "by-job")
    for path in ("by-job", "by-job/model.safetensors", "by-job/checkpoints/step-00000040"):
        assert coppice("eval", tmp_path / path, "--json")["error"] == expected["error"], path
    for inside, path in ((".", "model.safetensors"), (".", "."), ("checkpoints", "step-00000040")):
        command = [program("coppice"), "eval", path, "--json"]
        done = subprocess.run(command, cwd=tmp_path / "by-job" / inside, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and json.loads(done.stdout)["error"] == expected["error"], (inside, path, done.stderr)
    done = coppice("eval", "by-option", status=2)  # the data were moved
    assert str(tmp_path / "t") in done.stderr and "--data DIR" in done.stderr
    coppice("features", "by-job", "-o", "f.png")
    coppice("replay", "by-job", "--step", "1", "-o", "r.safetensors")
    assert coppice("eval", "by-job", "--ensemble", "1,5", "--json", "--quiet")["members"]


def test_openblas_run_is_resumed_only_with_the_same_openblas(coppice, small, tmp_path):
    arguments = ("run", small(20), "--set", "numerics=openblas", "--out", "run", "--resume", "auto")
    first = coppice(*arguments, "--json", "--quiet")
    refused = coppice(*arguments, status=2, OPENBLAS_CORETYPE="Sandybridge")
    assert "the run in run is pinned to another OpenBLAS or processor" in refused.stderr
    assert coppice("digest", "run", "--json")["digest"] == first["digest"]
    for _ in range(2):  # a resumed run keeps the pin
        assert coppice(*arguments, "--json", "--quiet")["digest"] == first["digest"]
    coppice(*arguments, status=2, OPENBLAS_CORETYPE="Sandybridge")


def test_job_file_in_a_run_folder_finds_the_data(coppice, small, tmp_path):
    small(20)
    first = coppice("run", "small.yaml", "--out", "first", "--json", "--quiet")
    coppice("plan", "first/job.yaml")
    resumed = coppice("run", "first/job.yaml", "--resume", "first", "--json", "--quiet")
    again = coppice("run", "first/job.yaml", "--out", "again", "--json", "--quiet")
    assert first["digest"] == resumed["digest"] == again["digest"]
    for run in ("first", "again"):  # the location of the data stays known
        assert coppice("eval", run, "--json")["samples"], run
    coppice("run", "again/job.yaml", "--out", "again", "--overwrite", "--quiet")
    assert coppice("eval", "again", "--json")["digest"] == first["digest"]
