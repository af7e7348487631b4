"""Twenty seeded runs of chaos.py give one digest. For more: ./dev chaos --runs 100."""

import pathlib

import pytest

import chaos
import restarts

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def programs(program):
    return pathlib.Path(program("coppice")).resolve().parent


@pytest.fixture(scope="module")
def reference(programs, tmp_path_factory):
    return chaos.Reference(programs, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("seed", range(1, 21))
def test_digest_is_the_same_under_all_faults(programs, reference, tmp_path, seed):
    kind, faults = chaos.run_seed(programs, reference, tmp_path, seed)
    assert kind == chaos.KINDS[seed % 3] and sum(faults.values()) >= chaos.FAULTS_LEAST


@pytest.fixture(scope="module")
def bf16_reference(programs, tmp_path_factory):
    return chaos.Reference(programs, tmp_path_factory.mktemp("bf16"), "bf16")


@pytest.mark.parametrize("seed", (21, 22, 23))
def test_bf16_on_the_wire_has_one_digest_under_all_faults(programs, reference, bf16_reference, tmp_path, seed):
    assert bf16_reference.digest != reference.digest
    _, faults = chaos.run_seed(programs, bf16_reference, tmp_path, seed)
    assert sum(faults.values()) >= chaos.FAULTS_LEAST


def test_repeatedly_killed_coordinator_forgets_nothing(programs, reference, tmp_path):
    """Kills it 15 times; ./dev chaos restarts does 300."""
    figures = restarts.run(programs, reference, tmp_path, 1, 15)
    print(figures)
    assert figures["submissions"] >= 1
    assert figures["steps_redone"]["most"] <= 200, "checkpoint.every, and up to as many more while one is written"


def test_a_lost_sample_is_detected(programs, reference, tmp_path):
    """Tests the check itself: it rejects a run of a job with one sample less."""
    run = chaos.InProcess(programs, reference, tmp_path, 1)
    job = tmp_path / "job.yaml"
    text = job.read_text().replace("data: {", "data: {samples: 619, ")
    job.unlink()
    job.write_text(text)
    run.FAULTS = {"stall": 1}
    with pytest.raises(chaos.Broken, match="digest"):
        run.go()
