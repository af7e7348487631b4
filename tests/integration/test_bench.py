"""bench/step.py: its table says what was measured, and what was not."""

import importlib.util
import json
import os
import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench/step.py"


@pytest.fixture
def step():
    spec = importlib.util.spec_from_file_location("step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pool_and_run_have_the_same_digest(program, mnist):
    path = f"{pathlib.Path(program('coppice')).parent}:{os.environ['PATH']}"
    done = subprocess.run([SCRIPT, "--rows", "ipc-run,jax", "--repeat", "1", "--json"], capture_output=True, text=True, timeout=240, check=True,
                          env={**os.environ, "PATH": path, "COPPICE_MNIST": str(mnist)})
    result = json.loads(done.stdout)
    figures = result["subjects"]
    assert figures["run"]["digest"] == figures["ipc"]["digest"]
    jax, pool = result["rows"]
    assert jax["not_run"] == "JAX needs --peers" and "met" not in jax
    assert pool["ratio"] == pytest.approx(figures["ipc"]["ms_per_step"] / figures["run"]["ms_per_step"])
    assert "1 of 1: ipc" in done.stderr


def test_row_is_met_only_if_both_sides_ran(step):
    figures = step.summary({"run": [{"ms_per_step": t, "digest": "d"} for t in (5, 1, 3)], "JAX": [{"ms_per_step": 4}], "ipc": [{"failed": "no memory"}]})
    rows = {row["row"]: row for row in step.rows_of(figures, step.ROWS)}
    assert figures["run"]["ms_per_step"] == 3 and rows["jax"]["ratio"] == 0.75 and not rows["jax"]["met"]
    assert rows["ipc-run"]["failed"] == "ipc: no memory" and rows["torch"]["not_run"] == "PyTorch needs --peers"
    text = step.table(figures, rows.values())
    assert "failed: ipc: no memory" in text and "0.75" in text and text.count("| met |") == 0


def test_unknown_row_is_refused(step):
    done = subprocess.run([SCRIPT, "--rows", "jaxx"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no row jaxx; there are: jax, torch" in done.stderr


def test_failed_subject_is_reported_and_not_run_again(step):
    calls = []
    figures = step.summary(step.measure_all({"run": lambda: calls.append(1) or {"failed": "it ended"}, "JAX": lambda: {"ms_per_step": 2}}, 3))
    assert len(calls) == 1 and figures["run"] == {"failed": "it ended"} and figures["JAX"]["ms_per_step"] == 2
    assert step.outcome(["sh", "-c", "echo one >&2; echo two >&2; exit 3"], {}) == {"failed": "two"}


def test_written_table_keeps_rows_that_were_not_run(step, tmp_path):
    page = tmp_path / "page.md"
    old = "| jax | old jax |\n| ipc-run | old ipc |\n| wide | old wide |"
    page.write_text(f"before\n{step.MARKS[0]}\n{old}\n{step.MARKS[1]}\nafter\n")
    figures = step.summary({"run": [{"ms_per_step": 3}], "ipc": [{"ms_per_step": 6}]})
    rows = step.rows_of(figures, [row for row in step.ROWS if row[0] in ("jax", "ipc-run", "torch")])
    step.write(page, figures, rows)
    text = page.read_text()
    assert text.startswith(f"before\n{step.MARKS[0]}\n| row |") and text.endswith(f"{step.MARKS[1]}\nafter\n")
    lines = step.lines_by_row(text)
    assert lines["jax"] == "| jax | old jax |" and lines["wide"] == "| wide | old wide |"  # JAX was not run, and neither was the row wide
    assert "2.00" in lines["ipc-run"] and "not run" in lines["torch"]
    assert list(lines) == ["row", "jax", "torch", "ipc-run", "wide"]
