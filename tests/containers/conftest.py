"""The image of deploy/Dockerfile, made once, and docker's command line."""

import json
import os
import subprocess
import time

import pytest


def docker(*words, check=True, input=None, timeout=600):
    done = subprocess.run(["docker", *map(str, words)], capture_output=True, text=True, input=input, timeout=timeout, check=False)
    if check:
        assert done.returncode == 0, f"docker {' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="session")
def image(root):
    """deploy/Dockerfile's image, with this environment's compiler and libraries, where they are an image's."""
    toolchain = os.environ.get("COPPICE_DEV_ENVIRONMENT", "native")
    arguments = [] if toolchain == "native" else ["--build-arg", f"TOOLCHAIN={toolchain}"]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        ["docker", "build", "--network", "host", "-f", root / "deploy/Dockerfile", "-t", "coppice:test", *arguments, root],
        capture_output=True, text=True, timeout=900, check=False, env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return "coppice:test"


JOB = """
name: containers
seed: 5
data: {source: synthetic-digits, samples: 4000}
model:
  - dropout: {p: 0.2}
  - linear: {units: 512, max_norm: 2.0}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: STEPS, batch: 128, shards: 8}
optimizer: {sgd: {rate: 0.05, momentum: 0.9}}
evaluate: {every: 1000}
checkpoint: {every: 200}
"""


@pytest.fixture(scope="session")
def job():
    """job(steps): a job file's text."""
    return lambda steps: JOB.replace("STEPS", str(steps))


@pytest.fixture(scope="session")
def digest_of(program, tmp_path_factory):
    """digest_of(text): what `coppice run` makes of a job file."""

    def run(text):
        folder = tmp_path_factory.mktemp("expected")
        command = [program("coppice"), "run", "-", "--workers", "2", "--json", "--quiet", "--out", folder / "run"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, check=True)
        return json.loads(done.stdout.splitlines()[-1])["digest"]

    return run


def wait_for(test, what, seconds=90):
    for _ in range(int(seconds / 0.1)):
        if test():
            return
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


class Composition:
    """deploy/compose.yaml, running."""

    def __init__(self, root, image):
        self.name = f"coppice-test-{os.getpid()}"
        self.environment = {**os.environ, "COPPICE_IMAGE": image}
        self.file = root / "deploy/compose.yaml"

    def compose(self, *words, check=True, input=None):
        command = ["docker", "compose", "-p", self.name, "-f", self.file, *words]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, input=input, timeout=300, check=False, env=self.environment
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def coppice(self, *words, input=None, check=True):
        return self.compose("exec", "-T", "coordinator", "coppice", *words, input=input, check=check)

    def status(self, job=1):
        text = self.coppice("status", str(job), "--json", "--timeout", "30", check=False)
        return json.loads(text) if text.startswith("{") else {"step": -1, "state": "AWAY"}

    def workers(self):
        return json.loads(self.coppice("workers", "--json"))["workers"]

    def containers(self, service):
        return self.compose("ps", "-q", service).split()

    def scale(self, workers):
        self.compose("up", "-d", "--no-recreate", "--scale", f"worker={workers}")

    def wait_step(self, step):
        wait_for(lambda: self.status()["step"] >= step, f"step {step}")

    def down(self):
        self.compose("down", "-v", "-t", "1", "--remove-orphans", check=False)


@pytest.fixture
def composition(root, image):
    made = Composition(root, image)
    try:
        made.compose("up", "-d")
        wait_for(lambda: made.coppice("workers", "--timeout", "3", check=False), "the coordinator")
        yield made
    except BaseException:
        print(made.compose("logs", "--no-color", "--tail", "60", check=False)[-8000:])
        raise
    finally:
        made.down()
