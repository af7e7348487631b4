"""The Python code in docs/how-to/export.md runs on the files that its commands write."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from needs import check_module

BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def typed(root, program, tmp_path_factory):
    """Runs the commands of the page; returns the folder."""
    folder = tmp_path_factory.mktemp("export")
    environment = {**os.environ, "PATH": f"{pathlib.Path(program('coppice')).parent}:{os.environ['PATH']}"}
    for language, name, text in BLOCK.findall((root / "docs/how-to/export.md").read_text()):
        if name:
            (folder / name).write_text(text)
        elif language == "sh":
            subprocess.run(["bash", "-euc", text], cwd=folder, env=environment, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize("script, module", [("use_onnx.py", "onnxruntime"), ("use_torch.py", "torch")])
def test_python_of_the_export_page_runs(typed, script, module):
    check_module(module)
    done = subprocess.run([sys.executable, script], cwd=typed, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("[[") >= 1, done.stderr
