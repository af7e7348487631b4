"""deploy/Dockerfile and deploy/compose.yaml on a real engine: whatever happens to containers, the digest is that of `coppice run`."""

import json
import pathlib
import shutil
import tempfile

import pytest

from conftest import docker, wait_for

pytestmark = pytest.mark.containers


def test_image_is_small_and_runs_unprivileged(image):
    (facts,) = json.loads(docker("image", "inspect", image).stdout)
    assert facts["Config"]["User"] == "coppice" and facts["Config"]["Healthcheck"]
    assert "/var/lib/coppice" in facts["Config"]["Volumes"]
    tools = docker("run", "--rm", image, "sh", "-c", "id -u; command -v gcc cmake apt-listchanges git || true").stdout.split()
    assert tools == ["10001"], "the image must not contain a compiler"


def test_container_faults_do_not_change_the_digest(composition, job, digest_of):
    pool, text = composition, job(8000)
    network = f"{pool.name}_default"
    wait_for(lambda: len(pool.workers()) == 2, "two workers")
    assert all(w["address"].count(":") for w in pool.workers()), "over TLS and TCP"
    assert [w["path"] for w in pool.workers()] == ["shm", "shm"], "through the volume that both mount"
    pool.coppice("submit", "-", "--no-wait", input=text)
    pool.wait_step(20)
    pool.scale(4)
    wait_for(lambda: len(pool.workers()) == 4, "four workers")
    killed, paused, cut, _ = pool.containers("worker")
    docker("kill", killed)
    docker("pause", paused)
    docker("network", "disconnect", network, cut)
    wait_for(lambda: len(pool.workers()) == 1, "the silent ones to be noticed", 20)
    docker("unpause", paused)
    docker("network", "connect", network, cut)
    wait_for(lambda: len(pool.workers()) >= 3, "both to join again")
    pool.scale(2)
    assert pool.status()["state"] == "RUNNING", "the job was too short for all faults"
    (coordinator,) = pool.containers("coordinator")
    docker("rm", "-f", coordinator)
    pool.compose("up", "-d", "--no-recreate", "--scale", "worker=2")
    assert pool.containers("coordinator") != [coordinator]
    wait_for(lambda: pool.status()["state"] == "COMPLETED", "the job's end", 240)
    status = pool.status()
    assert status["digest"] == digest_of(text)
    assert "recovered after a restart" in pool.compose("logs", "coordinator")
    health = docker("inspect", "-f", "{{.State.Health.Status}}", *pool.containers("coordinator"))
    assert health.stdout.strip() in ("healthy", "starting")


def test_worker_out_of_memory_does_not_change_the_digest(composition, job, digest_of):
    """The kernel kills a worker that has less memory than the job needs; other workers compute its shards."""
    pool, text = composition, job(600)
    wait_for(lambda: len(pool.workers()) == 2, "two workers")
    command = "exec coppice-worker --join tls+tcp://coordinator:29700 --name worker-small --threads 8 --tls-dir /etc/coppice/worker"
    small = docker(
        "run", "-d", "--network", f"{pool.name}_default", "-v", f"{pool.name}_tls-worker:/etc/coppice/worker:ro",
        "--memory", "24m", "--memory-swap", "24m", pool.environment["COPPICE_IMAGE"], "sh", "-c", command,
    ).stdout.strip()
    try:
        wait_for(lambda: "worker-small" in [w["name"] for w in pool.workers()], "the small worker")
        pool.coppice("submit", "-", "--no-wait", input=text)
        wait_for(lambda: docker("inspect", "-f", "{{.State.OOMKilled}}", small).stdout.strip() == "true", "the kernel's kill")
    finally:
        docker("rm", "-f", small)
    wait_for(lambda: pool.status()["state"] == "COMPLETED", "the job's end", 120)
    status = pool.status()
    assert status["digest"] == digest_of(text) and status["leases_repeated"] >= 1


def test_worker_image_of_an_older_protocol_is_refused(composition, program):
    """The older worker understands the refusal, over TLS; the others continue."""
    pool = composition
    wait_for(lambda: len(pool.workers()) == 2, "two workers")
    old = pathlib.Path(program("coppice-worker")).resolve().parent.parent / "tests/old_worker"
    dockerfile = f"FROM {pool.environment['COPPICE_IMAGE']}\nCOPY old_worker /usr/local/bin/coppice-worker\n"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(old, f"{folder}/old_worker")
        pathlib.Path(folder, "Dockerfile").write_text(dockerfile)
        docker("build", "-t", "coppice-old:test", folder)
    command = "exec coppice-worker --join tls+tcp://coordinator:29700 --name worker-old --tls-dir /etc/coppice/worker"
    done = docker(
        "run", "--rm", "--network", f"{pool.name}_default", "-v", f"{pool.name}_tls-worker:/etc/coppice/worker:ro",
        "coppice-old:test", "sh", "-c", command, check=False, timeout=60,
    )
    assert done.returncode == 1 and "speaks protocol 1, you speak 0: install the same major version" in done.stderr
    assert len(pool.workers()) == 2
