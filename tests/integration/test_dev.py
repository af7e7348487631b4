"""How ./dev chooses its environment (deploy/dev/environment.sh), and which packages a test needs (deploy/dev/stages.sh)."""

import subprocess

import pytest

EVERYTHING = "build check parity valgrind clang qemu containers"
# Replaces the functions that examine the machine by fixed answers. Functions that would change the machine print what they do.
STUBS = """
native_has() {{ [[ " $* " != *" check "* ]] && {libraries} || {tools}; }}
native_can_have() {{ {apt}; }}
native_install() {{ echo "apt-get $*"; tools=true libraries=true; native_has() {{ true; }}; }}
engine_is_here() {{ {engine}; }}
engine_ensure() {{ {engine} || {{ {containers} && echo "docker.io"; }}; }}
chroot_can_work() {{ {chroot}; }}
chroot_ensure() {{ echo "debootstrap $*"; }}
image_find() {{ :; }}
image_ensure() {{ echo "image $*"; }}
image_name() {{ echo "image"; }}
build_beside_image() {{ echo "image of everything, beside $*"; }}
base_ensure() {{ :; }}
lacks() {{ echo cmake; }}
native_advice() {{ echo "apt-get install cmake"; }}
"""


@pytest.fixture
def shell(root):
    """shell(script): runs a bash script with ./dev's functions; returns its output lines."""

    def call(script, status=0):
        sources = "".join(f"source {root}/deploy/dev/{name}.sh\n" for name in ("environment", "stages"))
        done = subprocess.run(["bash", "-c", f"set -euo pipefail\nROOT={root}\nunset COPPICE_DEV_ENVIRONMENT\n{sources}{script}"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        return (done.stdout + done.stderr).strip().splitlines()

    return call


def machine(**answers):
    return STUBS.format(**{**{name: "false" for name in ("libraries", "tools", "apt", "engine", "containers", "chroot")}, **answers})


@pytest.mark.parametrize("answers, groups, printed", [
    ({"libraries": "true", "tools": "true"}, "build check", ["native"]),
    ({"libraries": "true"}, "build", ["native"]),
    ({"apt": "true", "engine": "true", "chroot": "true"}, "build check", ["apt-get build check", "native"]),
    ({"engine": "true", "chroot": "true"}, "build check", ["image build check", "image"]),
    ({"libraries": "true", "engine": "true"}, "build check", ["image build check", "image"]),
    ({"containers": "true", "chroot": "true"}, "build check", ["debootstrap build check", "chroot"]),
    ({"containers": "true", "chroot": "true"}, "build check containers", ["docker.io", "image build check containers", "image"]),
    ({"containers": "true", "chroot": "true"}, EVERYTHING, ["docker.io", "image of everything, beside release asan tsan", "image"]),
    ({"chroot": "true"}, EVERYTHING, [f"debootstrap {EVERYTHING}", "chroot"]),
    ({"libraries": "true"}, "build check", ["native"]),
])
def test_dev_chooses_the_first_possible_environment(shell, answers, groups, printed):
    assert shell(machine(**answers) + f'environment_choose {groups}\necho "$ENVIRONMENT"') == printed


def test_without_any_environment_dev_prints_the_install_command(shell):
    (line,) = shell(machine() + "environment_choose build check", status=1)
    assert line == "dev: this system lacks cmake for a build, and ./dev cannot get it. Type: apt-get install cmake"


@pytest.mark.parametrize("forced, printed", [
    ("native", ["native"]), ("engine", ["docker.io", "image build", "image"]), ("chroot", ["debootstrap build", "chroot"]),
])
def test_a_forced_environment_has_precedence(shell, forced, printed):
    answers = machine(libraries="true", containers="true", chroot="true")
    assert shell(f'{answers}FORCED={forced}\nenvironment_choose build\necho "$ENVIRONMENT"') == printed


@pytest.mark.parametrize("arguments, groups", [
    ("", EVERYTHING), ("--all", EVERYTHING), ("test_golden", "build check"), ("kernels_test_mask", "build check"),
    ("test_arm64_gives_the_same_digest", "build check qemu"), ("parity", "build check parity"), ("test_losses", "build check parity"),
    ("lint qemu", "build check clang qemu"), ("threads", "build check valgrind"), ("test_no_leak_under_valgrind", "build check valgrind"),
    ("containers", "build check containers"), ("test_hosts", "build check containers"),
])
def test_a_named_test_needs_only_its_own_package_groups(shell, arguments, groups):
    assert shell(f"groups_for_test {arguments}") == [groups]


@pytest.mark.parametrize("kind, group, included", [
    ("test", "qemu", True), ("check", "check", True), ("check", "clang", False), ("build", "check", False), ("build", "build", True),
    ("test-clang-qemu", "qemu", True), ("test-clang-qemu", "check", True), ("test-clang-qemu", "parity", False),
])
def test_image_name_tells_its_package_groups(shell, kind, group, included):
    assert shell(f"image_has {kind} build {group} && echo yes || echo no") == ["yes" if included else "no"]


def test_tests_that_cannot_run_are_counted_as_skipped(shell):
    """On a machine without cmocka and pytest."""
    without = "lacks_cmocka() { echo cmocka; }\nlacks_modules() { echo pytest; }\nSUMMARY=/dev/null\n"
    lines = shell(without + """
        run_ctest release -L '^quick$'
        run_pytest release -n 2 -m quick
        run_ctest release -R 'kernels_test_mask'
        run_pytest release -k 'test_tree or test_golden' -m 'not long'
        run_pytest release -k 'no_such_name' -m 'not long'
        echo "$SKIPPED"
    """)
    counts = [int(line.split()[1]) for line in lines[:-1]]
    assert [line.split(" ", 2)[2] for line in lines[:-1]] == [
        "C test programs: missing cmocka", "Python tests: missing pytest",
    ] * 2
    assert counts[0] > 60 and counts[1] > 150 and 1 <= counts[2] <= 4 and 20 <= counts[3] < 60, counts
    assert int(lines[-1]) == sum(counts)
