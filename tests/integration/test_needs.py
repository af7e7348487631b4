"""A test with a missing dependency names it (tests/needs.py), and deploy/packages.sh knows the package names of each system."""

import os
import re
import shutil
import subprocess
import sys

import pytest

TESTS = """
import subprocess
from needs import torch

TENSOR = torch.nn.functional.relu  # not looked up yet

def test_program():
    subprocess.run(["valgrind"], check=True)

def test_module():
    TENSOR(1)

def test_other_program():
    subprocess.run(["no-such-program"])

def test_neither():
    pass
"""


@pytest.fixture
def lacking(root, tmp_path):
    """lacking(**environment): runs pytest on TESTS as on a machine without valgrind and PyTorch; returns its output."""
    for name in ("conftest.py", "needs.py"):
        shutil.copy(root / "tests" / name, tmp_path)
    (tmp_path / "needs.py").write_text((tmp_path / "needs.py").read_text().replace('find_spec(name) is None', 'find_spec(f"no_{name}") is None'))
    (tmp_path / "test_some.py").write_text(TESTS)

    def call(**environment):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "PYTEST_"))}
        done = subprocess.run([sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", tmp_path], capture_output=True, text=True, check=False,
                              env={**inherited, "PATH": str(tmp_path), **environment}, cwd=tmp_path)
        return done.stdout

    return call


def test_a_test_with_a_missing_dependency_is_skipped_and_names_it(lacking):
    output = lacking()
    assert "valgrind is missing (Debian package: valgrind)" in output and "torch is missing (Debian package: python3-torch)" in output
    assert "1 failed, 1 passed, 2 skipped" in output, output  # a program that is in no package is a bug of the test


def test_a_missing_dependency_fails_a_test_in_a_complete_environment(lacking):
    output = lacking(COPPICE_TEST_COMPLETE="1")
    assert "3 failed, 1 passed" in output and "torch is missing" in output, output


@pytest.fixture
def packages(root, tmp_path):
    """packages(system, version, *words): the words that deploy/packages.sh prints on that system."""

    def call(system, version, *words, status=0):
        (tmp_path / "os-release").write_text(f"ID={system}\nVERSION_ID={version}\n" if version else f"ID={system}\n")
        done = subprocess.run(["sh", root / "deploy/packages.sh", *words], capture_output=True, text=True, check=False,
                              env={**os.environ, "OS_RELEASE": str(tmp_path / "os-release")})
        assert done.returncode == status, done.stderr
        return done.stdout.split()

    return call


@pytest.mark.parametrize("system, version, nng, jpeg, ssl", [
    ("debian", "12", False, "libjpeg62-turbo", "libssl3"),
    ("debian", "13", True, "libjpeg62-turbo", "libssl3t64"),
    ("debian", "", True, "libjpeg62-turbo", "libssl3t64"),  # testing
    ("ubuntu", "24.04", False, "libjpeg-turbo8", "libssl3t64"),
    ("ubuntu", "25.04", True, "libjpeg-turbo8", "libssl3t64"),
])
def test_packages_have_the_names_of_each_system(packages, system, version, nng, jpeg, ssl):
    build, run = packages(system, version, "list", "build"), packages(system, version, "list", "run")
    assert ("libnng-dev" in build) == ("libnng1" in run) == nng
    assert f"{jpeg}-dev" in build and jpeg in run and ssl in run


@pytest.mark.parametrize("system, version, absent", [
    ("debian", "12", {"python3-safetensors", "python3-onnxruntime", "docker-cli", "kustomize"}),
    ("debian", "13", set()),
    ("ubuntu", "24.04", {"python3-safetensors", "python3-onnxruntime", "docker-cli", "kustomize"}),
])
def test_packages_that_a_system_does_not_have_are_left_out(packages, system, version, absent):
    names = {"python3-safetensors", "python3-onnxruntime", "docker-cli", "kustomize"}
    assert names - set(packages(system, version, "list", "check", "parity", "containers")) == absent


def test_dev_and_packages_sh_know_the_same_groups(packages, root):
    groups = re.search(r'^EVERYTHING="(.*)"$', (root / "deploy/dev/engine.sh").read_text(), re.MULTILINE)[1].split()
    lists = [packages("debian", "13", "list", group) for group in groups]
    assert all(lists) and len(set(sum(lists, []))) == sum(map(len, lists)), "no package is in two groups"
    packages("debian", "13", "list", "everything", status=2)
