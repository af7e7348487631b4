"""Tests `./dev` on fresh machines: unprivileged containers without a container engine, each with a clone of this repository.

They build in the background at low priority, while the other tests of this folder run (conftest.py: fresh)."""

import re

import pytest

from conftest import ONE_TEST

pytestmark = pytest.mark.containers

DIGEST = re.compile(r"^digest +([0-9a-f]{64})$", re.MULTILINE)


def check_quickstart(root, output):
    """Compares the quickstart on MNIST with the figures in README."""
    (digest,) = DIGEST.findall(output)
    assert digest in (root / "README.md").read_text() and "the same as in the README" in output, output
    (error,) = re.findall(r"^ +test error +([\d.]+ %)$", (root / "README.md").read_text(), re.MULTILINE)
    assert re.search(rf"^test error +{re.escape(error)}$", output, re.MULTILINE), output


def check_no_engine(machine):
    """Checks that nothing installed a container engine."""
    assert machine.type("command -v dockerd docker podman || echo none").strip() == "none"


def test_debian_13_installs_packages_and_builds_natively(fresh, root):
    machine, output = fresh("debian13")
    check_quickstart(root, output["quickstart"])
    (line,) = [line for line in output["quickstart"].splitlines() if line.startswith("dev: installing with apt-get")]
    assert "because a build or test needs them" in line and " libnng-dev" in line and "pytest" not in line
    assert "5 passed, 0 failed" in output["test"] and "skipped" not in output["test"], output["test"]
    check_no_engine(machine)
    assert output["sources before"] == output["sources after"]
    assert "Packages" in machine.type("ls /var/lib/apt/lists")


def test_ordinary_user_runs_the_tests_that_can_run(fresh):
    """Uses the machine of the test above, which has the groups build and check of deploy/packages.sh."""
    machine, _ = fresh("debian13")
    output = machine.type(f"chown -R me . && su me -c './dev test lint fuzz qemu containers {ONE_TEST}'")
    assert re.search(r"^5 passed, 0 failed, \d+ skipped$", output, re.MULTILINE), output
    reported = re.findall(r"^SKIPPED: \d+ (.*?): missing (.*)$", output, re.MULTILINE)
    assert set(reported) == {
        ("check", "clang-format"), ("check", "shellcheck"), ("check", "clang-tidy"),
        ("tests of the stage fuzz", "clang"),
        ("tests of the stage qemu", "qemu-aarch64, aarch64-linux-gnu-gcc, arm64 libraries"),
        ("tests of the stage containers", "a running container engine"),
    }
    skipped = sum(map(int, re.findall(r"^SKIPPED: (\d+)", output.split("== image")[-1], re.MULTILINE)))
    assert f", {skipped} skipped" in output and skipped > 30


def test_debian_12_makes_a_debian_13_system_in_a_folder(fresh, root):
    machine, output = fresh("debian12")
    check_quickstart(root, output["quickstart"])
    assert output["quickstart"].count("with debootstrap, once: no container can run here") == 1
    assert "5 passed, 0 failed" in output["test"] and "with debootstrap" not in output["test"], output["test"]
    check_no_engine(machine)
    assert output["sources before"] == output["sources after"]
    # Files that a command writes to the repository are copied back; files deleted outside are deleted in the chroot, too.
    machine.type("rm -f new gone; echo 1 >gone; ./dev exec sh -c 'test -f gone; echo 2 >new'; test $(cat new) = 2")
    machine.type("rm gone; ./dev exec test ! -e gone")
    machine.type("./dev exec sh -c 'exit 7'", status=7)


@pytest.mark.parametrize("image, line", [
    ("debian13", r"Type: sudo apt-get install .*\bcmake .*\blibnng-dev .*\blibuv1-dev "),
    ("debian12", r"Type: sudo apt-get install podman$"),
])
def test_without_any_environment_one_line_shows_the_install_command(bare, image, line):
    machine = bare(image)
    for command in ("quickstart", "test kernels_test_mask", "exec true"):
        output = machine.type(f"./dev {command}", user="me", status=1)
        assert re.search(line, output, re.MULTILINE), output
        assert len(output.splitlines()) == 1, output


@pytest.mark.parametrize("word, text", [
    ("--engine", "no container engine answers, and none can be started here"), ("--native", "this system lacks "), ("--chroot", "a chroot needs root"),
])
def test_a_forced_environment_is_not_replaced_by_another(bare, word, text):
    assert text in bare("debian13").type(f"./dev {word} exec true", user="me", status=1)


def test_the_fresh_machines_have_the_expected_systems(bare):
    for name, version in (("debian13", "13"), ("debian12", "12")):
        assert f'VERSION_ID="{version}"' in bare(name).type("cat /etc/os-release")
        assert "not permitted" in bare(name).type("unshare -m true", status=1)
