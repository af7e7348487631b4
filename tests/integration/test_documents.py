"""Checks the documents: generated pages match the programs, and the commands in tutorials and how-tos run.

In a page, a block ```sh is run, and a block ```yaml NAME (or csv, python ...) is saved as NAME. All blocks of a page run in order, in one
folder, as a user would type them. A block ```sh elsewhere is not run: CANNOT_RUN has the reason. A block ```text shows output.

The commands run on this machine, so the test replaces the addresses and folders of a page by its own."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from integration_tools import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tools"))
import reference  # noqa: E402

PAGES = sorted(str(path.relative_to(ROOT)) for folder in ("tutorial", "how-to") for path in (ROOT / "docs" / folder).glob("*.md"))

def test_readme_has_the_right_number_of_layer_kinds(layer_kinds):
    assert re.search(r"has (\d+)\s+kinds of layers", (ROOT / "README.md").read_text()).group(1) == str(len(layer_kinds))


# Page -> why its blocks `sh elsewhere` cannot run here, and what tests them instead.
CANNOT_RUN = {
    "docs/how-to/add-workers.md": "needs a second machine: tests/containers/test_hosts.py",
    "docs/how-to/back-up.md": "needs a coordinator at work: test_backup_and_restore_keep_the_digest of test_upgrade.py takes the two commands from the page",
    "docs/how-to/build.md": "builds the programs: test_cmake.py, tests/containers/test_fresh.py",
    "docs/how-to/install.md": "needs root, Docker, systemd: tests/containers/test_compose.py, test_systemd.py",
    "docs/how-to/kubernetes.md": "needs a cluster: tests/containers/test_kubernetes.py checks the files that it applies",
    "docs/how-to/slurm.md": "needs Slurm: tests/containers/test_slurm.py",
}

BLOCK = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("coppice", "coppice-coordinator", "coppice-worker")


def blocks_of(page):
    return BLOCK.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", sorted(reference.PAGES))
def test_generated_page_matches_the_programs(page, program, monkeypatch):
    monkeypatch.setenv("PATH", f"{pathlib.Path(program('coppice')).parent}:{os.environ['PATH']}")
    assert (ROOT / f"docs/reference/{page}.md").read_text() == reference.PAGES[page](), "./dev exec tests/tools/reference.py writes it anew"


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_marked_with_its_language(page):
    """Otherwise a command could hide in a block that is not run."""
    for language, name, text in blocks_of(page):
        assert language in ("sh", "text") or name, f"{page}: a block without a language, or a file without a name:\n{text}"
        if language == "text":
            assert not re.search(r"^(\./dev|coppice[\w-]*) ", text, re.MULTILINE), f"{page}: a command in a block of output:\n{text}"
    indented = re.findall(r"^ {4,}(?:\./dev|coppice[\w-]*) .*$", (ROOT / page).read_text(), re.MULTILINE)
    shell = "".join(text for language, _, text in blocks_of(page) if language == "sh")
    assert not [line for line in indented if line not in shell], f"{page}: commands outside of a block: {indented}"


def test_blocks_that_are_not_run_have_a_reason():
    elsewhere = {page for page in PAGES if any(language == "sh" and name for language, name, _ in blocks_of(page))}
    assert elsewhere == set(CANNOT_RUN)
    assert {name for page in PAGES for language, name, _ in blocks_of(page) if language == "sh"} <= {"", "elsewhere"}


# Makes a page's coordinator listen on the test's port if the page gives no address.
COORDINATOR = """#!/bin/sh
case " $* " in *" --listen "* | *" --init-tls "* | *" --help "*) ;; *) set -- --listen "tcp://127.0.0.1:$TEST_PORT" "$@" ;; esac
exec {program} "$@"
"""


def until(command):
    return f"for i in $(seq 400); do {command} 2>/dev/null && break; sleep 0.05; done"


@pytest.fixture
def typed(program, tmp_path):
    """typed(blocks): runs shell blocks in a separate home folder; returns their output."""
    home, tools = tmp_path / "home", tmp_path / "bin"
    home.mkdir(), tools.mkdir()
    port = free_port()
    for name in PROGRAMS:
        text = COORDINATOR if name == "coppice-coordinator" else "#!/bin/sh\nexec {program} \"$@\"\n"
        (tools / name).write_text(text.format(program=program(name)))
        (tools / name).chmod(0o755)
    away = {name: None for name in os.environ if name.startswith(("COPPICE_", "XDG_"))}
    environment = {name: value for name, value in os.environ.items() if name not in away} | {
        "HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "TEST_PORT": str(port), "COPPICE_COORDINATOR": f"tcp://127.0.0.1:{port}",
        "COPPICE_LOG": "warn"}

    def adapt(text):
        for written, here in ((":29700", f":{port}"), ("train.example", "localhost"), ("/var/lib/coppice", f"{home}/state"),
                              ("/etc/coppice", f"{home}/etc"), ("/backup", f"{home}/backup")):
            text = text.replace(written, here)
        return text

    def run(blocks, timeout=120):
        (home / "etc").mkdir(exist_ok=True)
        script = []
        for language, name, text in blocks:
            if language == "sh" and not name:
                script.append(adapt(text))
            elif language not in ("sh", "text"):
                script.append(f"cat > {name} <<'END_OF_FILE'\n{text}END_OF_FILE\n")
        # Wait until a background program is ready before the next line, as a user would.
        listens, joined = until("(echo >/dev/tcp/127.0.0.1/$TEST_PORT)"), until(r"coppice workers --json | grep -q 'name.:.\2'")
        script = re.sub(r"^(coppice-coordinator .*)&( *#.*)?$", r"\1&\n" + listens, "".join(script), flags=re.MULTILINE)
        script = re.sub(r"^(coppice-worker --name (\S+) .*)&( *#.*)?$", r"\1&\n" + joined, script, flags=re.MULTILINE)
        process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=home, env=environment, text=True, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=(tmp_path / "output").open("w"), stderr=subprocess.STDOUT)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = "still running"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # its background processes
            except ProcessLookupError:
                pass
            process.wait()
        output = (tmp_path / "output").read_text()
        assert status == 0, f"{status}\n{script}\n{output[-6000:]}"
        return output

    return run


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page, typed):
    blocks = blocks_of(page)
    if not any(language == "sh" and not name for language, name, _ in blocks):
        assert page in CANNOT_RUN or not any(language == "sh" for language, _, _ in blocks)
        return
    output = typed(blocks)
    for digest in re.findall(r"\b[0-9a-f]{64}\b", (ROOT / page).read_text()):
        assert digest in output, f"{page} shows a digest that its commands do not give"


def test_a_failing_command_in_a_page_is_detected(typed):
    with pytest.raises(AssertionError, match="did you mean"):
        typed([("sh", "", "coppice jobss\n")])


# ---- commands in all documents that are not run ----

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SHOWN = re.compile(r"(?:^ *|[`(|;&$] ?)(coppice(?:-coordinator|-worker)?)(?![\w-])((?: +[^`|;&<>#\n]+)?)", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|^ {4}\S.*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def options(program):
    """options(program, command): its options according to --help; None if the command does not exist."""
    known = {}

    def of(name, command):
        if (name, command) not in known:
            words = [program(name), *([command] if command else []), "--help"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            known[name, command] = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", done.stdout)) | {"--help", "--version", "-h"} if done.returncode == 0 else None
        return known[name, command]

    return of


def wrong_commands(text, options):
    for code in CODE.findall(text):
        for name, rest in SHOWN.findall(code):
            words = rest.split()
            command = words[0] if name == "coppice" and words and re.fullmatch(r"[a-z]+", words[0]) else None
            taken = options(name, command)
            if taken is None:
                yield f"{name} {command}"
            elif command or name != "coppice":
                used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
                yield from (f"{name} {command or ''} {word}" for word in sorted(used - taken))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_in_documents_exist(document, options):
    assert not list(wrong_commands((ROOT / document).read_text(), options))


def test_wrong_commands_and_options_are_detected(options):
    assert list(wrong_commands("`coppice evall 1`, `coppice eval 1 --ensembl 3`\n\n    coppice-worker --jion x\n", options)) == [
        "coppice evall", "coppice eval --ensembl", "coppice-worker  --jion"]


# ---- messages quoted in documents ----

QUOTES = ["docs/reference/data.md", "docs/reference/evaluation.md", "docs/how-to/troubleshoot.md"]


def literals_of_sources():
    text = ""
    for folder in ("common", "coordinator", "worker", "client"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            text += re.sub(r'"\s*(?:PRI\w+\s*)?"', "", path.read_text())
    found = " | ".join(re.findall(r'"((?:\\.|[^"\\\n])*)"', text))
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s]", " | ", re.sub(r"%[-+ .*\d]*[a-zA-Z]*", " | ", found))).lower()


def quoted_messages(text):
    """Yields code in table cells that looks like a message: five words or more, not starting with `coppice`."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield from (code for code in re.findall(r"`([^`]+)`", line) if len(re.findall(r"\b[a-z]{2,}\b", code)) >= 5 and not code.startswith("coppice"))


def is_message(quoted, literals):
    """Returns whether three quarters of the pairs of neighbouring words also occur in a message of the sources. Names, numbers and paths are
    ignored, because the source has %s there."""
    pieces = re.split(r'"[^"]*"|[\w./-]*[\d./_][\w./-]*|[^\w\s]|\b[A-Z]+\b', quoted)
    pairs = [" ".join(pair) for piece in pieces for words in [piece.lower().split()] for pair in zip(words, words[1:])]
    return sum(f" {pair} " in literals for pair in pairs) * 4 >= 3 * len(pairs) > 0


@pytest.mark.parametrize("document", QUOTES)
def test_messages_quoted_in_documents_exist_in_the_sources(document):
    literals, quoted = literals_of_sources(), list(quoted_messages((ROOT / document).read_text()))
    unknown = [message for message in quoted if not is_message(message, literals)]
    assert not unknown, "\n".join(unknown)


def test_a_changed_message_is_detected():
    assert not is_message("train.csv:17: only three fields where four were expected", literals_of_sources())
