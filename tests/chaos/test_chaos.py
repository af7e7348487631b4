"""Twenty seeded runs of chaos (chaos.py): one digest. More by command: ./dev chaos --runs 100."""

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
def test_one_digest_whatever_happens(programs, reference, tmp_path, seed):
    kind, faults = chaos.run_seed(programs, reference, tmp_path, seed)
    assert kind == chaos.KINDS[seed % 3] and sum(faults.values()) >= chaos.FAULTS_LEAST


def test_coordinator_killed_again_and_again_forgets_nothing(programs, reference, tmp_path):
    """15 times here; 300 by command: ./dev chaos restarts."""
    figures = restarts.run(programs, reference, tmp_path, 1, 15)
    print(figures)
    assert figures["submissions"] >= 1
    assert figures["steps_redone"]["most"] <= 200, "checkpoint.every, and at most as many trained while one was written"


def test_a_lost_sample_would_be_seen(programs, reference, tmp_path):
    """The judgement is not blind: a run of another job (one sample less) is refused."""
    run = chaos.InProcess(programs, reference, tmp_path, 1)
    job = tmp_path / "job.yaml"
    text = job.read_text().replace("data: {", "data: {samples: 619, ")
    job.unlink()
    job.write_text(text)
    run.FAULTS = {"stall": 1}
    with pytest.raises(chaos.Broken, match="digest"):
        run.go()
