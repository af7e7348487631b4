"""./dev fuzz with failing and slow targets. The targets here are scripts that imitate libFuzzer's output."""

import json
import subprocess
import sys

import pytest

TARGET = """#!/bin/sh
for word; do
    case $word in
        -artifact_prefix=*) kept=${word#*=}%(name)s ;;
        -timeout=60)
            case "$*" in *%(name)s) %(python)s -c "while __import__('time').process_time() < %(again)s / 1000: pass" ;; esac
            echo "Executed it"
            exit 0
            ;;
    esac
done
[ -n "%(name)s" ] || { sleep 1; echo "stat::number_of_executed_units: 1000"; exit 0; }
[ ! -e "$kept.once" ] || { sleep 1; echo "stat::number_of_executed_units: 1000"; exit 0; }
touch "$kept" "$kept.once"
echo "Test unit written to $kept"
echo "stat::number_of_executed_units: 500"
exit 77
"""


@pytest.fixture
def fuzz(root, tmp_path):
    """fuzz(name, again): runs the driver on a target that writes an artifact with this name, and takes `again` ms of CPU time when it is replayed.
    Returns exit status and output."""

    def run(name="", again=5, *options):
        script = tmp_path / "fuzz_csv"
        script.write_text(TARGET % {"name": name, "again": again, "python": sys.executable})
        script.chmod(0o755)
        done = subprocess.run(
            [sys.executable, root / "tests/fuzz/fuzz.py", "csv", "--seconds", "2", "--programs", tmp_path, "--cache", tmp_path / "cache", *options],
            capture_output=True, text=True, check=False,
        )
        return done.returncode, done.stdout

    return run


def test_a_target_without_failures_is_counted(fuzz):
    status, output = fuzz("", 5, "--json")
    result = json.loads(output)
    assert status == 0 and result["crashes"] == 0 and result["executions"] >= 1000


def test_a_crash_is_reported_with_the_command_to_replay_it(fuzz, tmp_path):
    status, output = fuzz("crash-1", 5)
    kept = tmp_path / "cache/crashes/csv/crash-1"
    assert status == 1 and kept.exists()
    assert f"./dev fuzz csv --input {kept}" in output and "1 crashes" in output


def test_an_input_counts_as_slow_only_if_repeatedly_slow(fuzz, tmp_path):
    status, output = fuzz("timeout-1", 100, "--json", "--seconds", "4")
    assert status == 0 and json.loads(output)["executions"] >= 1500
    assert not (tmp_path / "cache/crashes/csv/timeout-1").exists()


def test_a_repeatedly_slow_input_counts_as_a_crash(fuzz):
    status, output = fuzz("timeout-1", 1400, "--json")
    assert status == 1 and json.loads(output)["crashes"] == 1
