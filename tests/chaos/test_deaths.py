"""Workers that die are noticed, and their blocks computed by others (deaths.py; how soon: ./dev chaos deaths). A coordinator that stood still
itself blames nobody."""

import pathlib
import signal
import time

import pytest

import deaths

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def programs(program):
    return pathlib.Path(program("coppice")).resolve().parent


def test_each_death_is_noticed_and_its_block_given_again(programs, tmp_path):
    """50 kills, 10 stops and 3 cuts; 1000, 200 and 50 by command. How soon is not judged on a busy machine, only that no heartbeat more than
    three is waited for: a stopped worker is given up within 5 s."""
    counts = {"kill": 50, "stop": 10, "cut": 3}
    times = deaths.run(programs, tmp_path, 1, counts)
    print({deed: {what: deaths.summary(values) for what, values in row.items()} for deed, row in times.items()})
    for deed, count in counts.items():
        assert len(times[deed]["noticed"]) == count
        assert max(times[deed]["noticed"]) < 5000, deed
    assert len(times["kill"]["leased again"]) >= 10, "most of those that are killed hold a block"


def test_coordinator_that_stood_still_keeps_its_workers(programs, tmp_path):
    """For twice as long as a worker may be silent: what they said meanwhile is read before anybody is given up."""
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
