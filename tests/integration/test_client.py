"""The client as users see it: help, completion, colours, downloads from faulty mirrors, inspect, export, eval."""

import functools
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading

import pytest
from safetensors.numpy import load_file


def run(program, *words, **environment):
    return subprocess.run([program("coppice"), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, **environment})


@pytest.fixture(scope="session")
def commands(program):
    """The names of all commands, from the output of --help."""
    return re.findall(r"^  ([a-z]+) .*  ", run(program, "--help").stdout.split("Examples:")[0], re.MULTILINE)


def test_every_command_has_help_with_examples(program, commands):
    assert {"run", "plan", "submit", "watch", "eval", "export", "data"} <= set(commands)
    for command in commands:
        done = run(program, command, "--help")
        assert done.returncode == 0 and not done.stderr
        text = done.stdout
        assert text.startswith(f"coppice {command}") and "Options:" in text and "Examples:" in text
        assert f"coppice {command}" in text.split("Examples:")[1], command
        assert max(map(len, text.splitlines())) <= 130


def test_completion_offers_commands_and_options_in_bash(program, commands):
    script = run(program, "completion").stdout
    ask = """
source /dev/stdin
offer() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _coppice; printf '%s\\n' "${COMPREPLY[@]}"; }
offer coppice ''
echo --
offer coppice submit --no
echo --
offer coppice export 3 --format o
offer coppice eval 3 --average ''
"""
    done = subprocess.run(["bash", "-c", ask], input=script, capture_output=True, text=True, timeout=20, check=True)
    offered, options, values = re.split("^--\n", done.stdout, flags=re.MULTILINE)
    assert set(commands) <= set(offered.split())
    assert options.split() == ["--no-wait"]
    assert values.split() == ["onnx", "arithmetic", "geometric", "weight-scaling"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_work_in_other_shells(program, commands, shell):
    """Each shell loads its script and offers commands and options. If a shell is not installed, only the words of its script are checked."""
    script = run(program, "completion", shell).stdout
    assert all(re.search(rf"\b{command}\b", script) for command in commands)
    assert "no-wait" in script and "onnx" in script
    if not shutil.which(shell):
        assert script.count("'") % 2 == 0 and script.count('"') % 2 == 0
        return
    ask = 'complete -C "coppice submit --no"' if shell == "fish" else "autoload -Uz compinit; compinit -D; functions _coppice >/dev/null && echo no-wait"
    flag = ["-c", f"{script}\n{ask}"] if shell == "fish" else ["-f", "-c", f"autoload -Uz compinit; compinit -D\n{script}\n{ask}"]
    done = subprocess.run([shell, *flag], capture_output=True, text=True, timeout=20, check=True)
    assert "no-wait" in done.stdout and done.stderr == ""


def test_completion_for_an_unknown_shell_is_refused(program):
    done = subprocess.run([program("coppice"), "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and 'no completion for "tcsh": expected bash, zsh or fish' in done.stderr


def test_no_colour_without_a_terminal_and_with_no_color(program):
    """`script` gives the program a terminal, where the help is bold unless NO_COLOR is set."""
    for environment, expected in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        done = subprocess.run(["script", "-qec", f"{program('coppice')} plan missing.yaml", "/dev/null"], capture_output=True, text=True,
                              timeout=20, check=False, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm", **environment})
        assert "missing.yaml" in done.stdout
        assert ("\x1b[" in done.stdout) == expected, environment
    assert "\x1b" not in run(program, "plan", "missing.yaml").stderr


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges. `lie` sends wrong bytes, `cut` ends the first answer for each file half-way, `whole` ignores ranges."""

    lie = cut = whole = False
    ranges = []
    seen = set()

    def do_GET(self):
        path = pathlib.Path(self.translate_path(self.path))
        if not path.exists():
            self.send_error(404)
            return
        body = path.read_bytes()
        begin = 0 if self.whole else int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if begin:
            type(self).ranges.append((path.name, begin))
        body = bytes(len(body)) if self.lie else body[begin:]
        self.send_response(206 if begin and not self.lie else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = self.cut and path.name not in self.seen
        self.seen.add(path.name)
        self.wfile.write(body[: len(body) // 2] if half else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def mirror(mnist):
    """mirror(**attributes): starts a server with MNIST's files; returns its URL."""
    servers = []

    def start(**attributes):
        handler = type("Handler", (Mirror,), {"ranges": [], "seen": set(), **attributes})
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=mnist)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).glob("*-ubyte.gz")}


def test_data_get_downloads_from_a_mirror(program, mirror, mnist, tmp_path):
    url, _ = mirror()
    done = run(program, "data", "get", "mnist", "--out", tmp_path, "--quiet", COPPICE_MIRROR=url)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == digests(mnist) and len(digests(tmp_path)) == 4
    assert not list(tmp_path.glob("*.part"))


def test_data_get_resumes_an_interrupted_download(program, mirror, mnist, tmp_path):
    url, handler = mirror(cut=True)
    for _ in range(8):  # each run gets a little further; no other mirror is reachable here
        if run(program, "data", "get", "mnist", "--out", tmp_path, "--quiet", COPPICE_MIRROR=url).returncode == 0:
            break
    assert digests(tmp_path) == digests(mnist) and len(digests(tmp_path)) == 4
    assert handler.ranges, "a part was gone on with, not begun anew"


def test_data_get_starts_over_if_a_mirror_has_no_ranges(program, mirror, mnist, tmp_path):
    url, _ = mirror(whole=True)
    for path in pathlib.Path(mnist).glob("*-ubyte.gz"):
        (tmp_path / f"{path.name}.part").write_bytes(path.read_bytes()[:1000])
    done = run(program, "data", "get", "mnist", "--out", tmp_path, "--quiet", COPPICE_MIRROR=url)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == digests(mnist) and len(digests(tmp_path)) == 4


def test_data_get_refuses_wrong_files_from_a_mirror(program, mirror, tmp_path):
    url, _ = mirror(lie=True)
    done = run(program, "data", "get", "mnist", "--out", tmp_path, "--quiet", COPPICE_MIRROR=url)
    assert done.returncode != 0
    assert "SHA-256" in done.stderr
    assert not list(tmp_path.glob("*-ubyte.gz"))


def test_inspect_export_eval_and_digest_accept_a_run(coppice, small, tmp_path):
    result = coppice("run", small(), "--out", tmp_path / "run", "--json", "--quiet")
    assert coppice("digest", tmp_path / "run").stdout.split()[0] == result["digest"]
    printed = coppice("inspect", tmp_path / "run", "--json")
    assert result["digest"] in json.dumps(printed)
    coppice("export", tmp_path / "run", "-o", tmp_path / "m.safetensors")
    tensors = load_file(tmp_path / "m.safetensors")
    assert {name: t.shape for name, t in tensors.items()} == {
        "1.weight": (37, 306), "1.bias": (37,), "4.weight": (5, 37), "4.bias": (5,)}
    assert coppice("eval", tmp_path / "run", "--data", tmp_path, "--json")["error"] == pytest.approx(result["test_error"], abs=1e-9)
    sheet = tmp_path / "sheet.png"
    coppice("inspect", tmp_path / "run", status=0)
    coppice("inspect", "synthetic-digits", "-o", sheet, "--rows", 2, "--columns", 3)
    assert sheet.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_export_to_an_unknown_format_is_refused(coppice, small, tmp_path):
    coppice("run", small(10), "--out", tmp_path / "run", "--quiet")
    done = coppice("export", tmp_path / "run", "--format", "pickle", "-o", tmp_path / "m", status=2)
    assert "pickle" in done.stderr and "safetensors" in done.stderr
    assert not (tmp_path / "m").exists()


def test_job_file_may_come_from_standard_input(program, coppice, small, tmp_path):
    job = small(steps=20)

    def piped(*words, text):
        return subprocess.run([program("coppice"), *words], input=text, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)

    done = piped("run", "-", "--json", "--quiet", text=job.read_text())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == coppice("run", job, "--json", "--quiet")["digest"]
    done = piped("plan", "-", text=job.read_text().replace("batch:", "bach:"))
    assert done.returncode == 2 and re.search(r"standard input:\d+:\d+: .*bach.*batch", done.stderr), done.stderr
    done = piped("plan", "-", text="#" * (1 << 20) + "\n")
    assert done.returncode == 2 and "standard input: job file too large: the limit is 1048576 bytes" in done.stderr
