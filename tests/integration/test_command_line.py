"""The command line in difficult environments: no coordinator, the wrong scheme, timeouts, standard input and output, names, the token, little
memory, signals."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

from integration_tools import free_port


@pytest.fixture
def timed(program, tmp_path):
    """timed(*words): runs the client; returns its status, error output and seconds."""

    def run(*words, **options):
        began = time.monotonic()
        done = subprocess.run([program("coppice"), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                              cwd=tmp_path, **options)
        return done.returncode, done.stderr, time.monotonic() - began

    return run


# ---- no coordinator ----

ASKING = [("jobs",), ("status", "1"), ("watch", "1"), ("logs", "1", "-f"), ("workers",), ("eval", "1"), ("data", "list")]


@pytest.mark.parametrize("words", ASKING, ids=lambda words: words[0])
def test_refused_connection_is_reported_at_once(timed, words):
    url = f"tcp://127.0.0.1:{free_port()}"
    status, errors, seconds = timed(*words, "--coordinator", url)
    assert status == 2 and url in errors and "Connection refused" in errors, errors
    assert seconds < 3  # an earlier version took 10 s


def test_commands_wait_until_the_timeout(timed, program, processes, tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    status, errors, seconds = timed("jobs", "--coordinator", url, "--timeout", "1.5")
    assert status == 2 and "waited 1.5 s" in errors and seconds >= 1.5
    asking = processes(program("coppice"), "workers", "--coordinator", url, "--timeout", "30",
                       "--token", "of no coordinator", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(0.3)
    processes(program("coppice-coordinator"), "--listen", url, "--state", tmp_path / "state", stderr=subprocess.DEVNULL)
    _, errors = asking.communicate(timeout=40)
    assert "token" in errors and "no coordinator" not in errors  # the coordinator was found, and refused the token


@pytest.mark.parametrize("seconds", ["1e-300", "0", "0.001"])
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_each_timeout_ends_with_a_message(timed, seconds, scheme):
    url = f"tcp://localhost:{free_port()}" if scheme == "tcp" else "ipc:///nowhere/coppice.sock"
    for _ in range(5):
        status, errors, _ = timed("jobs", "--coordinator", url, "--timeout", seconds)
        assert status == 2 and "no coordinator at" in errors, (status, errors)


# ---- wrong scheme ----

@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_wrong_scheme_is_reported(cluster, timed, program, kind):
    pool = cluster(kind)
    other = pool.url.removeprefix("tls+") if kind == "tls" else "tls+" + pool.url
    tls = pool.folder / "tls"
    if kind == "tcp":
        subprocess.run([program("coppice-coordinator"), "--init-tls", tls], check=True, capture_output=True)
    options = ["--tls-dir", tls] if kind == "tcp" else []
    status, errors, seconds = timed("jobs", "--coordinator", other, *options)
    assert status == 2 and f"use {pool.url}" in errors, errors
    assert seconds < 6
    worker = subprocess.run([program("coppice-worker"), "--join", other, *map(str, options)], capture_output=True, text=True, timeout=30,
                            check=False)
    assert worker.returncode == 2 and f"use {pool.url}" in worker.stderr, worker.stderr


# ---- held requests ----

def test_watch_with_a_short_timeout_does_not_report_a_live_coordinator_as_silent(cluster, small):
    pool = cluster("tcp", data=small().parent)
    number = pool.client("submit", small(), "--data", small().parent, "--no-wait", "--json")["job"]
    for words in (("watch", number), ("logs", number, "-f")):
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for workers without a limit
            pool.client(*words, "--timeout", "1", timeout=5)


# ---- standard input ----

TAKES_STANDARD_INPUT = {  # command: its arguments, and the kind of its standard input
    "run": (["-", "--data", ".", "--workers", "1", "--quiet", "--out", "piped"], "job"),
    "plan": (["-", "--data", "."], "job"),
    "submit": (["-", "--no-wait"], "job"),
    "import": (["made/model.safetensors", "--spec", "-", "--data", ".", "-o", "imported.safetensors"], "job"),
    "predict": (["made", "--input", "-"], "samples"),
    "plot": (["-", "-o", "plot.svg"], "result"),
}


def test_commands_read_standard_input_only_once(cluster, coppice, small, tmp_path, program):
    """Each command reads standard input once. A new command whose --help mentions it needs a row in the table."""
    overview = subprocess.run([program("coppice"), "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z]+) ", overview.split("Commands:")[1].split("Examples:")[0], re.MULTILINE)
    helps = {c: subprocess.run([program("coppice"), c, "--help"], capture_output=True, text=True, check=True).stdout for c in commands}
    offered = {c for c, text in helps.items() if re.search(r"JOB\.yaml|standard input|RESULT", text)}
    assert offered == set(TAKES_STANDARD_INPUT)
    path = small(steps=20)
    coppice("run", path, "--data", tmp_path, "--workers", "1", "--quiet", "--out", "made")
    result = subprocess.run([program("coppice"), "eval", "made", "--data", ".", "--ensemble", "2,3", "--json", "--quiet"], cwd=tmp_path,
                            capture_output=True, check=True).stdout
    given = {"job": path.read_bytes(), "samples": (tmp_path / "test-images").read_bytes(), "result": result}
    pool = cluster("ipc")
    for command, (words, what) in TAKES_STANDARD_INPUT.items():
        variants = [words, [*words, "--data", "."], [*words, "--data", ".", "--dry-run"]] if command == "submit" else [words]
        for variant in variants[1:] if command == "submit" else variants:  # without --data, the coordinator lacks the data set
            done = subprocess.run([program("coppice"), command, *variant], input=given[what], cwd=tmp_path, env=pool.environment(),
                                  capture_output=True, timeout=60, check=False)
            assert done.returncode == 0, (command, variant, done.stderr)


# ---- standard output ----

PRINTING = [
    ("coppice", "--help"), ("coppice", "help", "run"), ("coppice", "run", "--help"), ("coppice", "--version"), ("coppice", "completion"),
    ("coppice", "plan", "-"), ("coppice", "plan", "-", "--json"),
    ("coppice-coordinator", "--help"), ("coppice-coordinator", "--version"), ("coppice-coordinator", "--list-methods"),
    ("coppice-worker", "--help"), ("coppice-worker", "--version"),
]
PLAIN = "name: plain\ndata: {source: synthetic-digits}\nmodel: [{linear: {units: 10}}]\ntrain: {steps: 1}\noptimizer: {sgd: {rate: 0.1}}\n"


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_full_standard_output_is_an_error(program, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run([program(words[0]), *words[1:]], input=PLAIN, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
                              check=False)
    assert done.returncode == 1 and "cannot write to standard output" in done.stderr, (done.returncode, done.stderr)


@pytest.mark.parametrize("words", [("coppice", "plan", "-", "--json"), ("coppice", "--help"), ("coppice-worker", "--help")], ids=" ".join)
def test_closed_pipe_is_not_reported_as_an_error(program, words):
    """Like other filters, the program prints nothing and ends by SIGPIPE, which a shell shows as 141."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([program(words[0]), *words[1:]], input=PLAIN, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
                          check=False)
    os.close(writer)
    assert done.returncode == -signal.SIGPIPE and done.stderr == ""


def test_predict_into_head_prints_no_error(program, coppice, small, tmp_path):
    coppice("run", small(steps=20), "--data", tmp_path, "--workers", "1", "--quiet", "--out", "made")
    line = f"{program('coppice')} predict made --input train-images --json --ensemble 20 | head -1 | cut -c1-1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{\n" and done.stderr == "" and done.returncode in (0, 141)


# ---- names and folders ----

@pytest.mark.parametrize("name", ["..", ".", "../..", ".hidden"])
def test_job_name_cannot_escape_the_runs_folder(coppice, small, tmp_path, name):
    path = tmp_path / "job.yaml"
    path.write_text(small(steps=3).read_text().replace("name: small", f"name: {name!r}"))
    (tmp_path / "model.safetensors").write_text("mine")
    before = path.read_text()
    done = coppice("run", path, "--data", tmp_path, "--workers", "1", status=None)
    assert path.read_text() == before and (tmp_path / "model.safetensors").read_text() == "mine"
    if done.returncode:  # refused because of its name
        assert done.returncode == 2 and name in done.stderr and "--out" in done.stderr
        coppice("run", path, "--data", tmp_path, "--workers", "1", "--out", "elsewhere")
    else:
        assert all(made.parent == tmp_path / "runs" for made in (tmp_path / "runs").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without an entry in /etc/passwd")
def test_cache_without_home_is_private_to_the_user(program):
    """Another user has already created the default folder."""
    user = 54321
    taken = f"/tmp/coppice-{user}"
    job = PLAIN.replace("synthetic-digits", "mnist")
    os.mkdir(taken, 0o777)
    try:
        done = subprocess.run([program("coppice"), "plan", "-"], input=job, capture_output=True, text=True, timeout=60, check=False, user=user,
                              group=user, extra_groups=[], env={}, cwd="/")
    finally:
        os.rmdir(taken)
    used = re.search(r"MNIST is not in (\S+)/.cache", done.stderr)
    assert used and used[1].startswith(f"{taken}-"), done.stderr
    assert os.stat(used[1]).st_uid == user and os.stat(used[1]).st_mode & 0o777 == 0o700
    os.rmdir(used[1])


# ---- the token ----

def test_programs_of_the_same_user_find_the_token(program, processes, tmp_path):
    """Neither --state nor COPPICE_TOKEN is given."""
    url = f"tcp://127.0.0.1:{free_port()}"
    mine = {k: v for k, v in os.environ.items() if not k.startswith("COPPICE_")} | {
        "HOME": str(tmp_path / "home"), "COPPICE_COORDINATOR": url}
    processes(program("coppice-coordinator"), "--listen", url, env=mine, stderr=subprocess.DEVNULL)
    worker = processes(program("coppice-worker"), "--name", "own", env=mine, stderr=subprocess.DEVNULL)

    def ask(*words, **environment):
        return subprocess.run([program("coppice"), "workers", "--json", "--timeout", "20", *words], env=mine | environment, capture_output=True,
                              text=True, timeout=60, check=False)

    for _ in range(100):
        done = ask()
        assert done.returncode == 0, done.stderr
        if '"own"' in done.stdout:
            break
        time.sleep(0.1)
    assert '"own"' in done.stdout and worker.poll() is None
    assert f'"threads":{len(os.sched_getaffinity(0))}' in done.stdout  # one thread per core, as in `run`
    token = tmp_path / "home/.local/state/coppice/token"
    stranger = ask(HOME=str(tmp_path / "other"))
    assert stranger.returncode == 2 and "--token-file" in stranger.stderr, stranger.stderr
    assert ask("--token-file", token, HOME=str(tmp_path / "other")).returncode == 0
    assert "no-such-file" in ask("--token-file", "no-such-file").stderr


# ---- little memory ----

def limited(mebibytes):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))


@pytest.mark.parametrize("name", ["coppice", "coppice-coordinator", "coppice-worker"])
def test_programs_start_without_memory_for_openblas(program, name):
    done = subprocess.run([program(name), "--version"], capture_output=True, text=True, timeout=20, check=False, preexec_fn=limited(290))
    assert done.returncode == 0 and done.stdout.startswith(name)
    linked = subprocess.run(["ldd", program(name)], capture_output=True, text=True, check=True).stdout
    assert "blas" not in linked


def test_openblas_without_memory_ends_with_a_message(program, small, tmp_path):
    path = small(steps=3, extra="numerics: openblas\n")
    done = subprocess.run([program("coppice"), "run", path, "--data", tmp_path, "--workers", "1", "--quiet"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=60, check=False, preexec_fn=limited(450))
    assert done.returncode == 2 and "OpenBLAS needs 512 MB of address space" in done.stderr, done.stderr


# ---- signals ----

def shell(program, command, cwd, **environment):
    """Runs a command from a message in a shell, as a user would paste it."""
    environment = {**os.environ, "PATH": f"{os.path.dirname(program('coppice'))}:{os.environ['PATH']}", **environment}
    return subprocess.run(["sh", "-c", command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["submit", "watch"])
def test_interrupted_submit_and_watch_print_commands_to_watch_and_cancel(cluster, program, processes, small, tmp_path, command, number):
    pool = cluster("ipc")
    pool.worker("w")
    elsewhere = tmp_path / "another place"
    elsewhere.mkdir()
    shutil.copy(pool.state / "token", elsewhere / "a token")
    options = ["--coordinator", pool.url, "--token-file", elsewhere / "a token"]
    words = ["submit", small(10_000_000), "--data", tmp_path] if command == "submit" else ["watch", "1"]
    if command == "watch":
        pool.client("submit", small(10_000_000), "--data", ".", "--no-wait")
    process = processes(program("coppice"), *words, *options, cwd=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if command == "submit":
        assert process.stdout.readline() == "job 1\n"
    pool.wait_step(1)
    time.sleep(0.5)  # time for the command to start following
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number and time.monotonic() - began < 2
    last = errors.splitlines()[-1]
    assert last.startswith(f"coppice {command}: interrupted: job 1 continues; "), errors
    watch, cancel = re.findall("`(.*?)`", last)
    assert pool.status()["state"] == "RUNNING"
    assert shell(program, cancel, elsewhere).returncode == 0
    assert pool.status()["state"] == "CANCELED"
    watched = shell(program, watch, elsewhere)
    assert watched.returncode == 1 and "job 1 was canceled" in watched.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_evaluation_prints_the_command_to_repeat_it(cluster, program, processes, small, tmp_path, number):
    pool = cluster("ipc")
    pool.worker("w")
    pool.client("submit", small(20), "--data", tmp_path, "--quiet")
    elsewhere = tmp_path / "another place"
    elsewhere.mkdir()
    shutil.copy(pool.state / "token", elsewhere / "a token")
    pool.workers["w"].send_signal(signal.SIGTERM)
    pool.workers["w"].wait(60)  # without a worker, the evaluation waits
    process = processes(program("coppice"), "eval", "1", "--ensemble", "1,3", "--coordinator", pool.url, "--token-file", elsewhere / "a token",
                        cwd=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pool.wait(lambda: len(pool.client("jobs", "--json")["jobs"]) == 2, "the evaluation")
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    last = errors.splitlines()[-1]
    assert process.returncode == 128 + number and last.startswith("coppice eval: interrupted: the coordinator drops the evaluation"), errors
    pool.worker("w2")
    done = shell(program, re.search("`(.*?)`", last)[1], elsewhere)
    assert done.returncode == 0 and "MEMBERS" in done.stdout, done.stderr


def interrupted_run(program, processes, folder, *words, signals=(signal.SIGINT,), **options):
    """Sends these signals to a run after its first checkpoint; returns its status and last line."""
    process = processes(program("coppice"), "run", *words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    while not list(folder.glob("my runs/*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.002)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.splitlines()[-1]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 1), (signal.SIGUSR1, 1)])
@pytest.mark.parametrize("piped", [False, True])
def test_interrupted_run_prints_the_command_to_resume_it(coppice, program, processes, small, tmp_path, number, status, piped):
    job = small(6000).rename(tmp_path / "a job.yaml")
    options = ["--set", "seed=7", "--workers", "1"]
    ended, last = interrupted_run(program, processes, tmp_path, "-" if piped else "a job.yaml", "--out", "my runs/it's", *options,
                                  signals=[number], stdin=open(job) if piped else None)
    assert ended == status, last
    step = re.search("stopped by a signal; the checkpoint of step ([0-9]+) is saved; continue with: ", last)
    assert step and (tmp_path / f"my runs/it's/checkpoints/step-{int(step[1]):08}").is_dir(), last
    command = last[step.end():]
    assert ("--data ." in command) == piped
    done = shell(program, command, tmp_path)
    assert done.returncode == 0, done.stderr
    digest = re.search("digest *([0-9a-f]{64})", done.stdout)[1]
    assert digest == coppice("run", job, "--out", "whole", *options, "--json", "--quiet")["digest"]


def test_second_interrupt_ends_a_run_at_once(program, processes, small, tmp_path):
    small(10_000_000)
    for attempt in range(10):  # the run may end by the first signal before the second arrives
        status, last = interrupted_run(program, processes, tmp_path, "small.yaml", "--out", f"my runs/{attempt}",
                                       signals=[signal.SIGTERM, signal.SIGINT])
        if status == 130:
            break
    assert status == 130 and last.startswith("coppice run: interrupted again, "), last
    assert f"coppice run small.yaml --out 'my runs/{attempt}' --resume auto" in last


def test_ignored_interrupt_stays_ignored(cluster, program, processes, small):
    """As in commands that a script starts in the background, or with nohup."""
    pool = cluster("ipc")
    pool.client("submit", small(40), "--data", ".", "--no-wait")
    process = processes(program("coppice"), "watch", "1", "--quiet", "--json", env=pool.environment(), stdout=subprocess.PIPE,
                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    pool.worker("w")
    assert process.wait(60) == 0
