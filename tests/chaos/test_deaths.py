"""Dead workers are noticed, and others compute their blocks (deaths.py; ./dev chaos deaths measures how soon). A coordinator that was stopped does
not blame its workers."""

import pathlib
import signal
import time

import pytest

import deaths

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def programs(program):
    return pathlib.Path(program("coppice")).resolve().parent


def test_each_death_is_noticed_and_its_block_leased_again(programs, tmp_path):
    """50 kills, 10 stops and 3 cuts; the command does 1000, 200 and 50. On a busy machine, times are not checked, except that a stopped worker
    is given up within 5 s, after three missed heartbeats."""
    counts = {"kill": 50, "stop": 10, "cut": 3}
    times = deaths.run(programs, tmp_path, 1, counts)
    print({deed: {what: deaths.summary(values) for what, values in row.items()} for deed, row in times.items()})
    for deed, count in counts.items():
        assert len(times[deed]["noticed"]) == count
        assert max(times[deed]["noticed"]) < 5000, deed
    assert len(times["kill"]["leased again"]) >= 10, "most of the killed workers hold a block"


def test_stopped_coordinator_keeps_its_workers(programs, tmp_path):
    """The coordinator is stopped for twice the time that a worker may be silent. It reads the workers' messages before it gives anyone up."""
    pool = deaths.Deaths(programs, tmp_path, 1)
    try:
        pool.start()
        for _ in range(2):
            pool.coordinator.send_signal(signal.SIGSTOP)
            time.sleep(3)
            pool.coordinator.send_signal(signal.SIGCONT)
            before = pool.step()
            pool.log.wait("steps", lambda: pool.step() > before)
            time.sleep(1)
        pool.log.read()
        lost = [text for _, text in pool.log.lines if deaths.NOTICED.match(text)]
        assert not lost and pool.log.joined == pool.workers.keys()
        pool.finish()
    finally:
        pool.close()
