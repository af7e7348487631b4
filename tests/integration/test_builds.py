"""Every build gives the same digest and leaks nothing: sanitizers, Debug, Clang, valgrind."""

import json
import os
import pathlib
import subprocess

import pytest

from test_golden import GOLDEN, SMALL


@pytest.mark.quick
@pytest.mark.asan
@pytest.mark.parametrize("workers", [1, 3])
def test_small_run_gives_the_golden_digest(coppice, small, workers):
    """Runs on the release build, and on the ASan/UBSan build, which must report nothing."""
    assert coppice("run", small(), "--workers", workers, "--json", "--quiet")["digest"] == SMALL


@pytest.mark.threads
def test_small_run_has_no_data_races(coppice, small):
    """Runs on the TSan build, with workers, coordinator, store and saver in one process."""
    assert coppice("run", small(), "--workers", 3, "--json", "--quiet")["digest"] == SMALL


@pytest.mark.quick
@pytest.mark.asan
def test_small_cluster_gives_the_golden_digest(cluster, small):
    pool = cluster("ipc")
    pool.worker("a", "--threads", "2")
    pool.worker("b")
    status = pool.client("submit", small(), "--data", ".", "--json", "--quiet")
    assert status["digest"] == SMALL
    assert pool.workers["a"].poll() is None and pool.stop() == 0


@pytest.mark.threads
def test_small_cluster_has_no_data_races(cluster, small):
    pool = cluster("tcp")
    pool.worker("a", "--threads", "2")
    pool.worker("b")
    assert pool.client("submit", small(), "--data", ".", "--json", "--quiet")["digest"] == SMALL
    assert pool.stop() == 0


def test_no_leak_under_valgrind(program, small, tmp_path):
    """Uses AVX2, because valgrind does not support AVX-512."""
    done = subprocess.run(
        ["valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9", "-q",
         program("coppice"), "run", small(steps=12), "--workers", "2", "--json", "--quiet"],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path, env={**os.environ, "COPPICE_ISA": "avx2"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["isa"] == "avx2"


@pytest.mark.long
@pytest.mark.parametrize("preset", ["debug", "clang"])
def test_debug_and_clang_builds_give_the_golden_digest(root, mnist, tmp_path, preset):
    subprocess.run(["cmake", "--preset", preset], cwd=root, check=True, capture_output=True)
    subprocess.run(["ninja", "-C", f"build/{preset}", "--quiet", "programs"], cwd=root, check=True, capture_output=True)
    done = subprocess.run(
        [pathlib.Path(root, "build", preset, "bin/coppice"), "run", root / "examples/golden.yaml", "--data", mnist, "--workers", "2", "--json", "--quiet"],
        capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["digest"] == GOLDEN
