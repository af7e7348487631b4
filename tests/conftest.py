"""Labels of the Python tests, and fixtures for all of them. The labels are those of ctest; ./dev test runs each in its stage.

A test without a label is `quick`, or `parity` in tests/parity. Run a single test with ./dev test NAME."""

import os
import pathlib
import re
import shutil
import subprocess

import needs
import pytest

LABELS = {
    "quick": "takes seconds; runs on the release build",
    "parity": "tests/parity: compares with PyTorch and ONNX Runtime; has its own stage",
    "asan": "also runs on the ASan/UBSan build",
    "threads": "runs on the TSan build",
    "qemu": "needs the arm64 programs and qemu's user mode",
    "sim": "the simulator; has its own stage",
    "chaos": "faults in real processes; has its own stage",
    "soak": "workers die for minutes; has its own stage",
    "containers": "needs a container engine",
    "long": "takes minutes; only with --all",
}
PRIMARY = set(LABELS) - {"asan"}


def pytest_configure(config):
    for label, text in LABELS.items():
        config.addinivalue_line("markers", f"{label}: {text}")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if not PRIMARY & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.parity if item.path.parent.name == "parity" else pytest.mark.quick)


def pytest_collection_finish():
    needs.collecting = False


def pytest_runtest_makereport(call):
    """Skips a test that tries to start a missing program (tests/needs.py)."""
    if call.excinfo and needs.is_missing_program(call.excinfo.value):
        with pytest.raises(pytest.skip.Exception) as skipped:
            needs.skip_without_program(call.excinfo.value.filename)
        call.excinfo = skipped


@pytest.fixture(scope="session")
def root():
    """The root of the repository."""
    return pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def mnist(root):
    """The folder with MNIST's four files. If there is none, the test is skipped."""
    for folder in (os.environ.get("COPPICE_MNIST"), root.parent / "shared/mnist", pathlib.Path.home() / ".cache/coppice/mnist"):
        if folder and pathlib.Path(folder, "train-images-idx3-ubyte.gz").exists():
            return str(folder)
    pytest.skip("MNIST is missing")


@pytest.fixture(scope="session")
def layer_kinds(root):
    """The kinds of layers in the registry."""
    kinds = re.findall(r"\bX\((\w+)\)", (root / "common/nn/layers/kinds.h").read_text())
    assert "linear" in kinds
    return kinds


@pytest.fixture(scope="session")
def program():
    """program(name): the path of coppice, coppice-coordinator or coppice-worker in the build under test."""

    def find(name):
        path = shutil.which(name, path=os.environ.get("COPPICE_BIN"))
        assert path, f"no {name}: set COPPICE_BIN to the build's bin folder"
        return path

    return find


@pytest.fixture(scope="session")
def sanitized(program):
    """Are the programs built with AddressSanitizer? Then they are about ten times slower, and tests take smaller samples."""
    return b"__asan_init" in pathlib.Path(program("coppice")).read_bytes()


@pytest.fixture(scope="session")
def arm64(root):
    """arm64(name): the command that runs a program of the arm64 build under qemu. Builds it if necessary."""
    needs.check_program("qemu-aarch64", "aarch64-linux-gnu-gcc")
    folder = pathlib.Path(os.environ.get("COPPICE_BIN_ARM64", root / "build/arm64/bin"))
    if folder == root / "build/arm64/bin":
        done = subprocess.run([root / "dev", "build", "--preset", "arm64", "programs"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def find(name):
        path = folder / name
        assert path.exists(), f"no {path}: ./dev build --preset arm64 programs"
        return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(path)]

    return find


@pytest.fixture
def processes():
    """processes(*command, **options): starts a process, and kills it at the end of the test."""
    started = []

    def start(*command, **options):
        options.setdefault("text", True)
        started.append(subprocess.Popen([str(word) for word in command], **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
