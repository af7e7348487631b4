"""deploy/slurm/coppice.sbatch on a real Slurm: one controller and two nodes in containers."""

import json
import os

import pytest

from conftest import docker, wait_for

pytestmark = pytest.mark.containers


class Slurm:
    """A Slurm cluster; its nodes share the file system /shared."""

    def __init__(self, image):
        self.name = f"coppice-slurm-{os.getpid()}"
        self.image = image

    def start(self):
        docker("network", "create", self.name)
        docker("volume", "create", self.name)
        for host in ("controller", "node1", "node2"):
            docker("run", "-d", "--name", f"{self.name}-{host}", "--hostname", host, "--network", self.name, "--network-alias", host,
                   "-v", f"{self.name}:/shared", self.image)
        docker("exec", f"{self.name}-controller", "chown", "user:", "/shared")
        wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D", check=False).strip() == "2", "both nodes")
        return self

    def run(self, *words, check=True, input=None):
        words = ["exec", *(["-i"] if input is not None else []), "--user", "user", "-w", "/shared", f"{self.name}-controller", *words]
        return docker(*words, check=check, input=input).stdout

    def put(self, name, text):
        self.run("sh", "-c", f"cat > /shared/{name}", input=text)

    def job(self, number):
        """The fields of `scontrol show job`."""
        words = self.run("scontrol", "show", "job", number, "-o", check=False).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def stop(self):
        for host in ("controller", "node1", "node2"):
            docker("rm", "-f", f"{self.name}-{host}", check=False)
        docker("volume", "rm", "-f", self.name, check=False)
        docker("network", "rm", self.name, check=False)


@pytest.fixture
def slurm(root, image):
    docker("build", "--network", "host", "-t", "coppice-slurm:test", "--build-arg", f"COPPICE={image}", root / "tests/containers/slurm")
    cluster = Slurm("coppice-slurm:test")
    try:
        yield cluster.start()
    except BaseException:
        print(docker("logs", "--tail", "40", f"{cluster.name}-controller", check=False).stderr)
        raise
    finally:
        cluster.stop()


def test_requeued_slurm_job_ends_with_the_same_digest(slurm, root, job, digest_of):
    text = job(1500)
    slurm.put("job.yaml", text)
    slurm.put("coppice.sbatch", (root / "deploy/slurm/coppice.sbatch").read_text())
    number = slurm.run("sbatch", "--parsable", "--nodes=2", "-o", "out.txt", "coppice.sbatch", "job.yaml", "--json", "--quiet").strip()
    output = lambda: slurm.run("cat", "out.txt", check=False)  # noqa: E731
    checkpoints = f"/shared/coppice-{number}/jobs/1/checkpoints"
    try:
        wait_for(lambda: "step-" in slurm.run("ls", checkpoints, check=False), "a checkpoint")
        # Slurm sends this before the time limit.
        slurm.run("scancel", "--signal=USR1", "--batch", number)
        wait_for(lambda: slurm.job(number).get("Restarts") == "1", "the requeue")
        wait_for(lambda: slurm.job(number).get("JobState") == "COMPLETED", "the job's end", 400)
    except AssertionError:
        print(slurm.job(number), output()[-4000:])
        raise
    (status,) = [json.loads(line) for line in output().splitlines() if line.startswith("{") and '"digest"' in line]
    assert status["state"] == "COMPLETED" and status["job"] == 1 and status["digest"] == digest_of(text)
    assert "recovered after a restart" in output()
    joined = {word for line in output().splitlines() if " joined" in line for word in line.split() if word.startswith("worker-node")}
    assert {"worker-node1-0", "worker-node2-1"} <= joined, joined


def test_slurm_script_without_a_job_prints_its_usage(slurm, root):
    slurm.put("coppice.sbatch", (root / "deploy/slurm/coppice.sbatch").read_text())
    number = slurm.run("sbatch", "--parsable", "-o", "out.txt", "coppice.sbatch").strip()
    wait_for(lambda: slurm.job(number).get("JobState") == "FAILED", "the refusal")
    assert slurm.job(number)["ExitCode"] == "2:0" and "usage: sbatch" in slurm.run("cat", "out.txt")
