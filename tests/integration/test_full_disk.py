"""A full state folder: training continues and reports it, writes succeed again when there is space, and submissions that cannot be stored are refused."""

import pathlib
import time

import needs
import pytest

MOUNT = 'mount -t tmpfs -o size=16m tmpfs "$0" && cp -r "$0.before/." "$0/" && exec "$@"'


class Full:
    """Starts a cluster's coordinator in a separate mount namespace, with a tmpfs of 16 MiB as its state folder. This is too small for an
    upload, so jobs and data must exist before."""

    def __init__(self, pool):
        needs.check_mounts()
        self.pool = pool
        state = self.pool.state
        assert self.pool.stop() == 0
        state.rename(f"{state}.before")
        state.mkdir()
        self.pool.start(command=("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, state))
        self.pool.state = pathlib.Path(f"/proc/{self.pool.coordinator.pid}/root{state}")  # the folder inside its namespace

    def fill(self):
        """Fills the state folder to the last byte; returns the number of bytes written."""
        written = 0
        with open(self.pool.state / "ballast", "wb", buffering=0) as file:
            for size in (1 << 16, 512, 1):
                try:
                    while True:
                        written += file.write(bytes(size))
                except OSError as error:
                    assert error.errno == 28
        return written

    def empty(self):
        (self.pool.state / "ballast").unlink()

    def log(self):
        return (self.pool.folder / "coordinator.log").read_text()

    def latest(self):
        return (self.pool.state / "jobs/1/checkpoints/latest").read_text()


@pytest.mark.asan
def test_training_continues_on_a_full_disk_and_recovers(cluster, coppice, small, sanitized):
    steps = 1600 if sanitized else 4000
    job = small(steps)
    job.write_text(job.read_text().replace("every: 40", "every: 20"))
    expected = coppice("run", job, "--json", "--quiet", "--workers", 1)["digest"]
    pool = cluster()
    assert pool.client("submit", job, "--data", ".", "--no-wait", "--json")["job"] == 1
    full = Full(pool)
    for name in "ab":
        pool.worker(name)
    pool.wait_step(100)
    assert full.fill() > 8 << 20
    began = pool.status()["step"]
    pool.wait(lambda: "No space left" in full.log(), "a warning in the log")
    pool.wait_step(began + 100)  # training continues past checkpoints
    status = pool.client("status", 1)
    assert "No space left" in status.stdout and "training continues" in status.stdout
    assert "No space left" in pool.status()["warning"]
    refused = pool.client("submit", job, "--data", ".", "--set", "name=later", "--no-wait", status=1).stderr
    assert "full" in refused, refused
    before, stopped = full.latest(), pool.status()["step"]
    assert stopped < steps
    full.empty()
    freed = time.monotonic()
    pool.wait(lambda: full.latest() != before, "a checkpoint", 20)
    saved = time.monotonic() - freed
    pool.wait(lambda: "can be written again" in full.log(), "the store", 20)
    stored = time.monotonic() - freed
    pool.wait(lambda: "warning" not in pool.status(), "the warning to end", 20)
    print(f"a checkpoint {saved:.2f} s after there was room, the store {stored:.2f} s")
    assert saved < 1 and stored < 1
    later = pool.client("submit", job, "--data", ".", "--set", "name=later", "--set", "train.steps=20", "--no-wait", "--json")["job"]
    # A submission that the store could not write uses up its number, one that is refused before does not. Neither leaves a job.
    assert later in (2, 3)
    assert [row["job"] for row in pool.client("jobs", "--json")["jobs"]] == [later, 1]
    pool.wait(lambda: pool.status()["state"] == "COMPLETED", "the end", 120)
    assert pool.status()["digest"] == expected
    assert pool.stop() == 0
