"""Optional dependencies of tests: modules of hundreds of megabytes, and programs that not every machine has.

A test file imports a heavy module from here (`from needs import torch`). The module is loaded when a test first uses
it, so collecting tests is fast and needs none of them. If a module or program is missing, the test is skipped, and the
reason names it. If COPPICE_TEST_COMPLETE is set, everything should be installed, and the test fails instead."""

import functools
import importlib.util
import os
import shutil
import subprocess

import pytest

# Each dependency, and its Debian package.
MODULES = {
    "torch": "python3-torch",
    "onnx": "python3-onnx",
    "onnxruntime": "python3-onnxruntime",
    "jsonschema": "python3-jsonschema",
}
PROGRAMS = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "clang": "clang",
    "ctags": "universal-ctags",
    "docker": "docker-cli",
    "gdb": "gdb",
    "git": "git",
    "kustomize": "kustomize",
    "openssl": "openssl",
    "qemu-aarch64": "qemu-user",
    "setpriv": "util-linux",
    "sqlite3": "sqlite3",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
    "valgrind": "valgrind",
}

collecting = True  # conftest.py sets it to False after collection


def skip_without(name, package):
    skip_or_fail(f"{name} is missing (Debian package: {package})")


def skip_or_fail(text):
    """Skips the test; fails it if COPPICE_TEST_COMPLETE is set."""
    if os.environ.get("COPPICE_TEST_COMPLETE"):
        pytest.fail(text)
    pytest.skip(text)


def check_module(name):
    """Skips the test if this module is missing, without importing it."""
    if importlib.util.find_spec(name) is None:
        skip_without(name, MODULES[name])


def is_missing_program(error):
    complete = os.environ.get("COPPICE_TEST_COMPLETE")
    return isinstance(error, FileNotFoundError) and error.filename in PROGRAMS and not complete


def skip_without_program(name):
    skip_without(name, PROGRAMS[name])


def check_program(*names):
    for name in names:
        if shutil.which(name) is None:
            skip_without_program(name)


def check_mounts():
    """Skips the test if a process may not mount in its own namespace, as in an unprivileged container."""
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        skip_or_fail("permission to mount is missing")


class LazyModule:
    """A module, or an attribute of it, which is loaded when a test first uses it. During collection, its attributes are LazyModules, too."""

    def __init__(self, module, attribute=""):
        self._module, self._attribute = module, attribute

    def _value(self):
        check_module("torch" if self._module == "safetensors.torch" else self._module)
        names = self._attribute.split(".") if self._attribute else []
        return functools.reduce(getattr, names, importlib.import_module(self._module))

    def __getattr__(self, name):
        if name.startswith("__"):  # pytest looks for these
            raise AttributeError(name)
        if collecting:
            return LazyModule(self._module, f"{self._attribute}.{name}".lstrip("."))
        return getattr(self._value(), name)

    def __call__(self, *arguments, **options):
        return self._value()(*arguments, **options)


torch = LazyModule("torch")
onnxruntime = LazyModule("onnxruntime")
jsonschema = LazyModule("jsonschema")
save_torch = LazyModule("safetensors.torch", "save_file")
load_torch = LazyModule("safetensors.torch", "load_file")
