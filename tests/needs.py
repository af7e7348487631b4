"""What only some tests need: modules of hundreds of megabytes, and programs that not every machine has.

A test file imports a heavy module from here (`from needs import torch`). The module is loaded when a test first uses
it, so that collecting tests costs nothing and needs nothing. Where the module or a program is missing, the test is
skipped with the name of the missing thing. COPPICE_TEST_COMPLETE says that everything should be here: then the test
fails instead."""

import functools
import importlib.util
import os
import shutil
import subprocess

import pytest

# What is missing, and Debian's package of it.
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

collecting = True  # conftest.py ends it


def skip_without(name, package):
    end_test(f"{name} is not here (Debian: {package})")


def end_test(text):
    """Skipped, or failed where everything should be here."""
    if os.environ.get("COPPICE_TEST_COMPLETE"):
        pytest.fail(text)
    pytest.skip(text)


def check_module(name):
    """Skips the test where this module is missing, without importing it."""
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
    """Skips the test where a process may not mount in a namespace of its own, as in a container without privileges."""
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        end_test("the right to mount is not here")


class Later:
    """`module`, or `attribute` of it, which is looked up when a test uses it. While tests are collected, an attribute of it is one of these, too."""

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
            return Later(self._module, f"{self._attribute}.{name}".lstrip("."))
        return getattr(self._value(), name)

    def __call__(self, *arguments, **options):
        return self._value()(*arguments, **options)


torch = Later("torch")
onnxruntime = Later("onnxruntime")
jsonschema = Later("jsonschema")
save_torch = Later("safetensors.torch", "save_file")
load_torch = Later("safetensors.torch", "load_file")
