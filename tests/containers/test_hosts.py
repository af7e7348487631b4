"""Types README's section on pools line by line on fresh hosts: two containers on a separate network."""

import json
import os
import re
import subprocess

import pytest

from conftest import docker, wait_for

pytestmark = pytest.mark.containers


class Host:
    """A container with an unprivileged user's shell; `type` runs a line in it."""

    def __init__(self, name, network, image):
        self.name = f"{network}-{name}"
        docker("run", "-d", "--init", "--name", self.name, "--hostname", name, "--network", network, "--network-alias", name, image, "sleep", "1d")

    def type(self, line, check=True, timeout=240):
        return docker("exec", self.name, "bash", "-c", f"cd ~; {line}", check=check, timeout=timeout).stdout

    def type_and_leave(self, line):
        """Runs a line in a separate terminal, in the background."""
        docker("exec", "-d", self.name, "bash", "-c", f"cd ~; {line} 2>>log")

    def put(self, path, text):
        docker("exec", "-i", self.name, "bash", "-c", f"cd ~; mkdir -p $(dirname {path}); cat >{path}", input=text)

    def put_folder(self, folder, path):
        packed = subprocess.run(["tar", "-C", folder, "-ch", "."], capture_output=True, check=True).stdout
        command = ["docker", "exec", "-i", self.name, "bash", "-c", f"cd ~; mkdir -p {path}; tar -C {path} -x"]
        subprocess.run(command, input=packed, check=True)


@pytest.fixture
def hosts(image):
    """hosts(name...): starts fresh machines that reach each other by name."""
    network, made = f"coppice-hosts-{os.getpid()}", []
    docker("network", "create", network)

    def make(*names):
        made.extend(Host(name, network, image) for name in names)
        return made

    try:
        yield make
    except BaseException:
        for host in made:
            print(host.name, host.type("cat log", check=False)[-4000:])
        raise
    finally:
        for host in made:
            docker("rm", "-f", host.name, check=False)
        docker("network", "rm", network, check=False)


@pytest.fixture(scope="session")
def readme(root):
    """README's shell lines without comments, by the program with which their block starts; and its job file, shortened to one epoch."""
    text = (root / "README.md").read_text()
    blocks = [re.sub(r" +# .*$", "", block, flags=re.MULTILINE).split("\n")[:-1] for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    (job,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2 and "epochs: 20" in job
    return [[line for line in block if line] for block in blocks], job.replace("epochs: 20", "epochs: 1")


@pytest.fixture(scope="session")
def expected(readme, program, mnist, tmp_path_factory):
    """The digest of README's job, computed here in one process."""
    folder = tmp_path_factory.mktemp("readme")
    command = [program("coppice"), "run", "-", "--data", mnist, "--workers", "1", "--json", "--quiet", "--out", folder / "run"]
    done = subprocess.run(command, input=readme[1], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout.splitlines()[-1])["digest"]


def test_readme_pool_on_one_machine(hosts, readme, expected, mnist):
    (host,) = hosts("desk")
    (lines, _), job = readme
    host.put("job.yaml", job)
    host.put_folder(mnist, "mnist")
    host.put_folder(mnist, ".cache/coppice/mnist")  # instead of `coppice data get mnist`
    assert lines[0].startswith("coppice data get mnist ")  # the container has no network
    assert lines[2].startswith("coppice-coordinator ") and lines[3].startswith("coppice-worker ")
    assert expected in host.type(lines[1])
    for line in lines[2:4]:
        assert line.endswith(" &")
        host.type_and_leave(line.removesuffix(" &"))
    for line in lines[4:]:
        host.type(line)
    assert json.loads(host.type("coppice status 1 --json"))["digest"] == expected
    assert host.type("head -c 8 model.onnx | wc -c").strip() == "8"


def test_readme_pool_across_machines(hosts, readme, expected, mnist):
    train, desk = hosts("train", "desk")
    (_, lines), job = readme
    init, serve, work, *ask = (line.replace("HOST", "train") for line in lines)
    train.put_folder(mnist, "mnist")
    train.type(init)
    for name in ("ca.pem", "worker.pem", "worker.key", "client.pem", "client.key"):  # as README's comments say
        desk.put(f"tls/{name}", train.type(f"cat tls/{name}"))
    desk.type("chmod 600 tls/*.key")
    train.type_and_leave(serve)
    desk.type_and_leave(work)
    wait_for(lambda: "ready:" in train.type("cat log", check=False), "the coordinator")
    desk.put("job.yaml", job)
    assert len(ask) == 2 and ask[0].startswith("coppice submit job.yaml ") and ask[1].startswith("coppice jobs ")
    assert expected in desk.type(ask[0])
    assert "COMPLETED" in desk.type(ask[1])
    workers = json.loads(desk.type(ask[1].replace("coppice jobs", "coppice workers --json")))["workers"]
    assert [w["name"].startswith("worker-desk") for w in workers] == [True]
