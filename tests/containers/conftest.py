"""Fixtures of the container tests: the image of deploy/Dockerfile, built once, and docker's command line."""

import concurrent.futures
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
    """The image of deploy/Dockerfile. If this environment is a container, it is built with this container's compiler and libraries."""
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
    """job(steps): the text of a job file."""
    return lambda steps: JOB.replace("STEPS", str(steps))


@pytest.fixture(scope="session")
def digest_of(program, tmp_path_factory):
    """digest_of(text): the digest that `coppice run` gives for a job file."""

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


# --- fresh machines ----------------------------------------------------------------------------

ONE_TEST = "test_import_at_the_top_of_a_file_is_detected"
BASES = {"debian13": "debian:trixie-slim", "debian12": "debian:bookworm-slim"}
HOME = "/home/me"
SOURCES = "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | md5sum"
# If the engine cannot pull an image, run debootstrap in a container of the image that ./dev has made or pulled.
BOOTSTRAP = """
apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap ca-certificates
mirror=$(sed -nE 's/^deb (\\[[^]]*\\] )?([^ ]+).*/\\2/p' /etc/apt/sources.list | head -n 1)
nice -n 19 debootstrap --variant=minbase --include=ca-certificates bookworm /bookworm "$mirror"
"""


def pytest_collection_modifyitems(items):
    """Runs the tests on fresh machines last, because they take the longest."""
    own = [item for item in items if item.path.name == "test_fresh.py"]
    items[:] = [item for item in items if item not in own] + own


class Machine:
    """An unprivileged container of one of BASES, with a user's clone of this repository."""

    def __init__(self, base, clone, mnist=None):
        self.name = f"coppice-fresh-{os.getpid()}-{base}{'' if mnist else '-bare'}"
        proxy = [word for name in ("http_proxy", "https_proxy") if os.environ.get(name) for word in ("-e", name)]
        docker("run", "-d", "--init", "--network", "host", *proxy, "--name", self.name, base_image(base), "sleep", "3600")
        # Debian's own images have this setting.
        docker("exec", self.name, "sh", "-c", "echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/docker-apt-speedup")
        docker("exec", self.name, "useradd", "--create-home", "--home-dir", HOME, "me")
        docker("exec", self.name, "mkdir", "-p", "/root/.cache/coppice")
        docker("cp", "-q", clone, f"{self.name}:{HOME}/coppice")
        if mnist:  # instead of `coppice data get mnist`
            docker("cp", "-q", mnist, f"{self.name}:/root/.cache/coppice/mnist")

    def type(self, command, user="root", status=0):
        """Runs a command; returns its stdout and stderr."""
        home = "/root" if user == "root" else HOME
        words = ["exec", "--user", user, "-e", f"HOME={home}", "-w", f"{HOME}/coppice", self.name, "nice", "-n", "19", "sh", "-c", f"exec 2>&1; {command}"]
        done = docker(*words, check=False, timeout=1200)
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-1000:]}"
        return done.stdout


def base_image(base):
    image = BASES[base]
    if docker("image", "inspect", image, check=False).returncode != 0 and docker("pull", "-q", image, check=False, timeout=60).returncode != 0:
        name = f"coppice-bootstrap-{os.getpid()}"
        try:
            docker("run", "--network", "host", "--name", name, BASES["debian13"], "sh", "-ec", BOOTSTRAP)
            subprocess.run(f"docker cp {name}:/bookworm/. - | docker import - {image}", shell=True, check=True, capture_output=True, timeout=300)
        finally:
            docker("rm", "-f", name, check=False)
    return image


def work(base, clone, mnist):
    """Makes a machine and runs the quickstart and a test on it; returns the machine and the output."""
    machine, output = Machine(base, clone, mnist), {}
    output["sources before"] = machine.type(SOURCES)
    for name, command in (("quickstart", "./dev quickstart"), ("test", f"./dev test {ONE_TEST}"), ("sources after", SOURCES)):
        output[name] = machine.type(command)
    return machine, output


@pytest.fixture(scope="session")
def clone(root, tmp_path_factory):
    """A clone of the repository with the current files."""
    folder = tmp_path_factory.mktemp("fresh") / "coppice"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{root}", folder], check=True, capture_output=True)
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, check=True, capture_output=True, text=True).stdout
    there = "\n".join(name for name in files.splitlines() if (root / name).is_file())
    packed = subprocess.run(["tar", "-c", "-T", "-"], cwd=root, check=True, capture_output=True, input=there.encode()).stdout
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=packed)
    return folder


@pytest.fixture(scope="session", autouse=True)
def fresh(request):
    """fresh(base): waits for the result of work(base). Both start before the first test of this folder."""
    tests = [item.function for item in request.session.items if item.path.name == "test_fresh.py"]
    if not any("fresh" in test.__code__.co_varnames for test in tests):  # fixturenames is no help, because it contains every autouse fixture
        yield None
        return
    clone, mnist = request.getfixturevalue("clone"), request.getfixturevalue("mnist")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        working = {base: pool.submit(work, base, clone, mnist) for base in BASES}
        try:
            yield lambda base: working[base].result()
        finally:
            for base in BASES:
                docker("rm", "-f", f"coppice-fresh-{os.getpid()}-{base}", check=False)


@pytest.fixture(scope="module")
def bare(clone):
    """bare(base): a machine on which nothing has run yet."""
    made = {}

    def machine(base):
        if base not in made:
            made[base] = Machine(base, clone)
        return made[base]

    try:
        yield machine
    finally:
        for machine in made.values():
            docker("rm", "-f", machine.name, check=False)
