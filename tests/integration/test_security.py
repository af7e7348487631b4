"""Security with real processes: TLS changes no bit and survives network faults; programs refuse bad certificates with a message; peers
without credentials do little harm; nothing from the network becomes a path or a command; a worker writes nothing.

tests/unit/coordinator/test_access.c tests who may make which request, on every socket."""

import json
import os
import pathlib
import random
import re
import resource
import socket
import ssl
import subprocess
import sys
import time

import pytest

from integration_tools import free_port

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))
from proxy import Proxy  # noqa: E402

GOLDEN = "eb0e8b03d75a366acfa7ce9e2fa1a145ddcde02b7ad3bae7a622be1c46dc4dbe"  # of the fixture `small` with 100 steps


@pytest.fixture
def tls(program, tmp_path):
    """A folder made by --init-tls."""
    subprocess.run([program("coppice-coordinator"), "--init-tls", tmp_path / "tls"], check=True, capture_output=True)
    return tmp_path / "tls"


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_expired(folder, stem):
    """Makes folder/expired.pem: the certificate STEM with the same key, but expired ten days ago."""
    request, extensions = folder / "request", folder / "extensions"
    subject = "/OU=" + stem + "/CN=" + stem
    use = "serverAuth" if stem == "coordinator" else "clientAuth"
    extensions.write_text(f"extendedKeyUsage={use}\nsubjectAltName=IP:127.0.0.1\n")
    openssl("req", "-new", "-key", folder / f"{stem}.key", "-subj", subject, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-extfile", extensions,
            "-not_before", "20200101000000Z", "-not_after", "20200111000000Z", "-out", folder / "expired.pem")
    return folder / "expired.pem"


# ---- the same bits ----


@pytest.mark.parametrize("workers", [1, 3])
def test_tls_does_not_change_the_digest(cluster, small, workers):
    pool = cluster("tls")
    for i in range(workers):
        pool.worker(f"w{i}")
    status = pool.client("submit", small(), "--data", ".", "--json", "--quiet")
    assert status["digest"] == GOLDEN and status["owner"] == "client"
    names = [w["name"] for w in pool.client("workers", "--json")["workers"]]
    assert sorted(names) == [f"worker-w{i}" for i in range(workers)]
    assert pool.client("digest", "1").stdout.strip() == GOLDEN  # a model is transferred, too
    assert pool.stop() == 0


def test_killed_worker_over_tls_does_not_change_the_digest(cluster, small):
    pool = cluster("tls")
    victim = pool.worker("victim")
    pool.worker("other")
    job = small(steps=1500)
    expected = pool.client("run", job, "--json", "--quiet")["digest"]
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.wait_step(50)
    pool.stop_while_busy("worker-victim")
    victim.kill()
    status = pool.client("watch", "1", "--json", "--quiet")
    assert status["digest"] == expected
    assert status["leases_repeated"] >= 1, "a lease was given again"


def test_stalled_and_cut_network_over_tls_does_not_change_the_digest(cluster, small):
    """When no byte passes and no connection ends, heartbeats notice it. The worker returns when the network does."""
    pool = cluster("tls")
    proxy = Proxy(int(pool.url.rsplit(":", 1)[1]))
    far = f"tls+tcp://127.0.0.1:{proxy.port}"
    pool.worker("near")
    pool.worker("far", COPPICE_COORDINATOR=far)
    pool.wait(lambda: len(pool.client("workers", "--json").get("workers", [])) == 2, "two workers")
    job = small(steps=4000)
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.wait_step(20)
    proxy.stall()
    pool.wait(lambda: [w["name"] for w in pool.client("workers", "--json")["workers"]] == ["worker-near"], "the far one to be missed", 20)
    proxy.cut()
    proxy.heal()
    joined = pool.folder / "worker-far.log"
    pool.wait(lambda: joined.read_text().count("joined") == 2, "the far one to be back", 20)
    for _ in range(5):
        time.sleep(0.1)
        proxy.cut()  # in the middle of messages
    status = pool.client("watch", "1", "--json", "--quiet")
    assert status["digest"] == pool.client("run", job, "--json", "--quiet")["digest"]
    proxy.close()


# ---- certificates ----


def test_init_tls_is_all_or_nothing(program, tmp_path):
    """Makes each write, fsync and rename in turn fail with ENOSPC."""
    whole = {f"{stem}.{end}" for stem in ("ca", "coordinator", "worker", "client") for end in ("pem", "key")}
    for k in range(1, 100):
        folder = tmp_path / f"{k}" / "tls"
        folder.parent.mkdir()
        done = subprocess.run([program("coppice-coordinator"), "--init-tls", folder], capture_output=True, text=True, check=False,
                              env={**os.environ, "COPPICE_FAIL_IO": str(k)})
        left = {path.name for path in folder.iterdir()} if folder.exists() else set()
        if done.returncode == 0:
            break
        assert "No space left" in done.stderr
        # Only the fsync after the last rename may fail with the folder in place.
        assert left in (set(), whole) and list(folder.parent.iterdir()) == ([folder] if left else [])
    assert left == whole and k > 24
    assert all((folder / f"{stem}.key").stat().st_mode & 0o777 == 0o600 for stem in ("ca", "coordinator", "worker", "client"))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_init_tls_refuses_a_used_folder(program, tmp_path):
    (tmp_path / "empty").mkdir()
    call = [program("coppice-coordinator"), "--init-tls"]
    assert subprocess.run([*call, tmp_path / "empty"], capture_output=True, check=False).returncode == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "empty").iterdir()}
    done = subprocess.run([*call, tmp_path / "empty"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nothing in it was changed" in done.stderr
    done = subprocess.run([*call, tmp_path / "empty", "--add", "client:client"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "already exists" in done.stderr
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "empty").iterdir()}


def test_openssl_accepts_the_certificates(program, tls):
    call = [program("coppice-coordinator"), "--init-tls", tls, "--add", "worker:desk-7", "--add", "coordinator:second", "--tls-host",
            "gpu1.example", "--tls-host", "10.1.2.3", "--tls-days", "30"]
    subprocess.run(call, check=True, capture_output=True)
    purposes = {"coordinator": "sslserver", "worker": "sslclient", "client": "sslclient", "worker-desk-7": "sslclient",
                "coordinator-second": "sslserver"}
    for stem, purpose in purposes.items():
        assert "OK" in openssl("verify", "-x509_strict", "-CAfile", tls / "ca.pem", "-purpose", purpose, tls / f"{stem}.pem")
        other = {"sslserver": "sslclient", "sslclient": "sslserver"}[purpose]
        done = subprocess.run(["openssl", "verify", "-CAfile", tls / "ca.pem", "-purpose", other, tls / f"{stem}.pem"],
                              capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "unsuitable certificate purpose" in done.stdout + done.stderr
    text = openssl("x509", "-in", tls / "coordinator-second.pem", "-noout", "-subject", "-ext", "subjectAltName", "-checkend", 29 * 86400)
    assert "OU=coordinator, CN=second" in text and "DNS:gpu1.example" in text and "IP Address:10.1.2.3" in text
    assert "will not expire" in text
    serials = {openssl("x509", "-in", path, "-noout", "-serial") for path in tls.glob("*.pem")}
    assert len(serials) == 6


def test_programs_refuse_their_own_bad_certificate_with_a_message(program, coppice, tls, tmp_path):
    url = f"tls+tcp://127.0.0.1:{free_port()}"
    starts = {
        "coordinator": [program("coppice-coordinator"), "--listen", url, "--state", tmp_path / "s"],
        "worker": [program("coppice-worker"), "--join", url],
        "client": [program("coppice"), "jobs", "--coordinator", url],
    }

    def refused(stem, *words, options=()):
        done = subprocess.run([*starts[stem], *map(str, options)], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 2, done.stderr
        for word in words:
            assert word in done.stderr, done.stderr

    for stem in starts:
        refused(stem, "--tls-dir DIR", "--init-tls")
        refused(stem, "nowhere", options=["--tls-dir", tmp_path / "nowhere"])
        refused(stem, "expired.pem", "expired on 2020-01-11 00:00:00 UTC", options=["--tls-dir", tls, "--tls-cert", make_expired(tls, stem)])
        key = tls / f"{stem}.key"
        key.chmod(0o644)
        refused(stem, f"{stem}.key", "mode 0644", "expected 0600", options=["--tls-dir", tls])
        key.chmod(0o600)
        refused(stem, "does not belong to", options=["--tls-dir", tls, "--tls-key", tls / "ca.key"])
    swap = ["--tls-dir", tls, "--tls-cert", tls / "worker.pem", "--tls-key", tls / "worker.key"]
    refused("client", "\"worker-*\" has only the role of a worker: expected OU=client", options=swap)
    refused("coordinator", "not meant for this side", options=swap)
    assert "is not encrypted" in coppice("jobs", "--coordinator", "tcp://127.0.0.1:1", "--tls-dir", tls, status=2).stderr


def test_both_sides_report_what_is_wrong_with_the_other(cluster, program, tls, tmp_path):
    """The client detects an expired coordinator certificate by itself. The coordinator logs each refused peer with its certificate."""
    pool = cluster("tls")  # uses the same folder of certificates
    make_expired(tls, "client")
    done = subprocess.run(["openssl", "s_client", "-connect", pool.url.removeprefix("tls+tcp://"), "-CAfile", tls / "ca.pem", "-cert",
                           tls / "expired.pem", "-key", tls / "client.key", "-ign_eof"], input="", capture_output=True, text=True, timeout=20, check=False)
    assert "alert certificate expired" in done.stderr
    log = (tmp_path / "coordinator.log")
    pool.wait(lambda: re.search(r'127\.0\.0\.1:\d+: connection refused: the certificate "client" expired on 2020-01-11', log.read_text()),
              "the line in the log", 5)
    make_expired(tls, "coordinator")
    port = free_port()
    server = subprocess.Popen(["openssl", "s_server", "-accept", str(port), "-cert", tls / "expired.pem", "-key", tls / "coordinator.key",
                               "-quiet"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        done = pool.client("jobs", "--coordinator", f"tls+tcp://127.0.0.1:{port}", status=2)
        assert 'the certificate "coordinator" expired on 2020-01-11 00:00:00 UTC' in done.stderr
        worker = subprocess.run([program("coppice-worker"), "--join", f"tls+tcp://127.0.0.1:{port}", "--tls-dir", tls],
                                capture_output=True, text=True, timeout=20, check=False)
        assert worker.returncode == 2 and "expired on 2020-01-11" in worker.stderr
    finally:
        server.kill()
        server.wait()


def test_worker_certificate_cannot_call_client_methods(cluster, program):
    """With a worker's certificate, every listed method of clients is refused, by the client program or by the coordinator."""
    pool = cluster("tls")
    listed = subprocess.run([program("coppice-coordinator"), "--list-methods"], capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line) for line in listed.splitlines()]
    proto = (pathlib.Path(__file__).resolve().parents[2] / "proto/api.proto").read_text()
    known = dict(re.findall(r"(\w+) = (\d+);", re.search(r"enum Method \{(.*?)\}", proto, re.DOTALL).group(1)))
    methods = {row["name"]: str(row["number"]) for row in rows if row["kind"] == "method"}
    assert methods == known and all(row["role"] == "client" for row in rows if row["kind"] == "method")
    assert {row["name"] for row in rows if row["role"] == "worker"} == {"HELLO", "HEARTBEAT", "PULL"}
    swap = ["--tls-cert", str(pool.tls / "client.pem"), "--tls-key", str(pool.tls / "client.key")]
    done = subprocess.run([program("coppice-worker"), "--join", pool.url, "--tls-dir", pool.tls, *swap], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 2 and "expected OU=worker" in done.stderr
    done = subprocess.run([program("coppice-worker"), "--join", pool.url, "--tls-dir", pool.tls, "--name", "desk-7"], capture_output=True,
                          text=True, timeout=20, check=False)
    assert done.returncode == 2 and 'for workers called "worker-...", not "desk-7"' in done.stderr


def test_jobs_per_client_are_limited(cluster, small):
    pool = cluster("tls", start=False).start("--jobs-per-client", "2")
    job = small(steps=100000)
    for _ in range(2):
        pool.client("submit", job, "--data", ".", "--no-wait")
    done = pool.client("submit", job, "--data", ".", "--no-wait", status=2)
    assert 'the client "client" has 2 unfinished jobs' in done.stderr
    assert pool.stop() == 0
    pool.start("--jobs-per-client", "2")  # after a restart, it still knows the owners
    pool.client("submit", job, "--data", ".", "--no-wait", status=2)
    pool.client("cancel", 1)
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.client("cancel", 2)
    pool.client("cancel", 3)
    command = [pool.program("coppice"), "submit", str(job), "--data", ".", "--no-wait"]
    many = [subprocess.Popen(command, env=pool.environment(), cwd=pool.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(8)]
    assert sorted(one.wait(60) for one in many) == [0] * 2 + [2] * 6  # jobs that are being stored count, too


# ---- tokens ----


def test_readable_token_is_made_private(cluster):
    pool = cluster("tcp")
    token = pool.state / "token"
    before = token.read_text()
    assert pool.stop() == 0
    token.chmod(0o644)
    pool.start()
    assert token.stat().st_mode & 0o777 == 0o600 and token.read_text() == before
    assert "token had mode 0644: other users could read it" in (pool.folder / "coordinator.log").read_text()


def test_tls_needs_no_insecure_and_accepts_no_token(cluster, program, processes, tls, tmp_path):
    port = free_port()
    log = open(tmp_path / "log", "w")
    processes(program("coppice-coordinator"), "--listen", f"tls+tcp://0.0.0.0:{port}", "--tls-dir", tls, "--state", tmp_path / "s", stderr=log)
    for _ in range(200):
        if "ready" in (tmp_path / "log").read_text():
            break
        time.sleep(0.05)
    assert "warn" not in (tmp_path / "log").read_text()
    done = subprocess.run([program("coppice"), "jobs", "--coordinator", f"tls+tcp://127.0.0.1:{port}", "--tls-dir", tls],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0


def test_names_cannot_control_the_terminal(cluster, small, tmp_path):
    """A job may have any name, but output contains no control characters (JSON escapes them)."""
    pool = cluster("ipc")
    job = small(steps=3)
    job.write_text(job.read_text().replace("name: small", r'name: "a\e[2J\nb\x9bc"'))
    pool.worker("w")
    pool.client("submit", job, "--data", ".", "--quiet")
    for words in (["jobs"], ["status", 1], ["logs", 1], ["workers"], ["data", "list", "--coordinator", pool.url]):
        shown = pool.client(*words).stdout
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown), words
        if words[0] in ("jobs", "status"):
            assert "a?[2J?b??c" in shown
    assert pool.status()["name"] == "a\x1b[2J\nb\x9bc"


def test_insecure_is_logged(program, processes, tmp_path):
    log = tmp_path / "log"
    url = f"tcp://0.0.0.0:{free_port()}"
    processes(program("coppice-coordinator"), "--listen", url, "--insecure", "--state", tmp_path / "s", stderr=open(log, "w"))
    for _ in range(200):
        if "ready" in log.read_text():
            break
        time.sleep(0.05)
    assert f"warn  coordinator: {url} is reachable from other machines without encryption (--insecure)" in log.read_text()


# ---- strangers ----


def open_silent(address, count):
    silent = []
    for i in range(count):
        stranger = socket.create_connection(address, timeout=10)
        if i % 3 == 1:
            stranger.sendall(b"\x16\x03\x01")  # the start of a TLS handshake
        if i % 3 == 2:
            stranger.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100))
        silent.append(stranger)
    return silent


def test_a_thousand_half_open_peers_do_not_disturb_training(cluster, small):
    """Half-open peers are limited and closed after ten seconds, they lock nobody out, and the job continues at its speed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    pool = cluster("tls")
    pool.worker("w")
    job = small(steps=1000000)
    pool.client("submit", job, "--data", ".", "--no-wait")
    pool.wait_step(200)
    address = ("127.0.0.1", int(pool.url.rsplit(":", 1)[1]))

    def speed(seconds=1.2):
        first, began = pool.status()["step"], time.monotonic()
        time.sleep(seconds)
        return (pool.status()["step"] - first) / (time.monotonic() - began)

    ratios = []
    for _ in range(3):
        alone = speed()
        silent = open_silent(address, 1000)
        began = time.monotonic()
        pool.client("jobs")  # a new client
        assert time.monotonic() - began < 3
        ratios.append(speed() / alone)
        descriptors = len(os.listdir(f"/proc/{pool.coordinator.pid}/fd"))
        assert descriptors < 256 + 200, "as many as may be half open, and what was there"
        if len(ratios) < 3:
            for stranger in silent:
                stranger.close()
    # Peers with a valid certificate that are silent after the handshake.
    context = ssl.create_default_context(cafile=pool.tls / "ca.pem")
    context.load_cert_chain(pool.tls / "client.pem", pool.tls / "client.key")
    for greeting in (b"", b"\x00SP"):
        known = context.wrap_socket(socket.create_connection(address), server_hostname="localhost")
        known.sendall(greeting)
        silent.append(known)
    # bench/half_open.py measures the speed; on a busy machine, only check that training does not stop.
    assert max(ratios) > 0.7, ratios
    began = time.monotonic()
    for stranger in silent:
        stranger.settimeout(max(0.01, began + 14 - time.monotonic()))
        try:
            while stranger.recv(100):
                pass
        except (ConnectionResetError, ssl.SSLEOFError):
            pass  # the peer closed the connection, too
        stranger.close()
    assert "silent during the handshake" in (pool.folder / "coordinator.log").read_text()


def test_garbage_on_the_tls_port_is_rejected(cluster, small):
    pool = cluster("tls")
    pool.worker("w")
    job = small(steps=1500)
    pool.client("submit", job, "--data", ".", "--no-wait")
    noise = random.Random(5)
    address = ("127.0.0.1", int(pool.url.rsplit(":", 1)[1]))
    for i in range(60):
        with socket.create_connection(address, timeout=5) as stranger:
            head = [b"", b"\x16\x03\x01", b"\x16\x03\x03\x40\x00", b"\x00SP\x00\x00\x30\x00\x00"][i % 4]
            stranger.sendall(head + noise.randbytes(noise.randrange(1, 20000)))
    status = pool.client("watch", "1", "--json", "--quiet")
    assert status["digest"] == pool.client("run", job, "--json", "--quiet")["digest"]
    assert pool.coordinator.poll() is None


# ---- nothing from the network becomes a path or a command ----

TRACE = ["strace", "-D", "-f", "-qq", "-s", "4096", "-e", "trace=%file,%process", "-e", "signal=none", "-o"]
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|\b(mkdir|mkdirat|rename|renameat|renameat2|unlink|unlinkat|rmdir|link|linkat|"
                    r"symlink|symlinkat|chmod|fchmodat|chown|truncate|mknod|mknodat|utimensat)\(")


def calls_of(trace):
    """The system calls of a trace, without thread numbers. strace may still be writing the file."""
    size = -1
    while size != trace.stat().st_size:
        size = trace.stat().st_size
        time.sleep(0.3)
    return [line.split(None, 1)[1] for line in trace.read_text(errors="replace").splitlines() if " " in line]


def written_paths(calls):
    """Paths that were opened for writing, made, moved or removed, except names of threads."""
    paths = set()
    for call in calls:
        if WRITES.search(call) and " = -1 " not in call and not call.startswith(("execve", "clone")):
            paths |= set(re.findall(r'"([^"]*)"', call))
    return {path for path in paths if not re.fullmatch(r"/proc/self/task/\d+/comm", path)}


MARK = "HOSTILE"
HOSTILE = [
    f"../../{MARK}", f"/tmp/{MARK}", f"{MARK}/../../x", f"$(touch {MARK})", f"`touch {MARK}`", f"x; touch {MARK}", f"{MARK}|sh",
    f"%n%s%p{MARK}", f"'; DROP TABLE jobs; --{MARK}", f"~/{MARK}", f"file:///{MARK}", f"\\\\{MARK}\\x", f"{MARK}" * 15,
]


def test_names_from_the_network_are_never_paths_or_commands(cluster, program, small, tmp_path):
    pool = cluster("tcp", start=False)
    trace = tmp_path / "trace"
    pool.start(command=[*TRACE, trace])
    pool.worker("w", "--threads", "1")
    template = small(steps=3).read_text()
    accepted = 0
    for i, name in enumerate(HOSTILE):
        quoted = json.dumps(name)
        job = tmp_path / f"hostile-{i}.yaml"
        job.write_text(template.replace("name: small", f"name: {quoted}"))
        done = subprocess.run([program("coppice"), "submit", job, "--data", tmp_path, "--quiet", "--json"], capture_output=True, text=True,
                              env=pool.environment(), cwd=tmp_path, timeout=60, check=False)
        accepted += done.returncode == 0
        job.write_text(re.sub(r"data: .*", f"data: {{source: {quoted}}}", template))
        for words in (["submit", job, "--no-wait"], ["submit", job, "--no-wait", "--once", name], ["data", "rm", name], ["drain", name]):
            subprocess.run([program("coppice"), *words, "--coordinator", pool.url], capture_output=True, env=pool.environment(),
                           cwd=tmp_path, timeout=60, check=False)
        worker = subprocess.Popen([program("coppice-worker"), "--name", name[:120], "--threads", "1"], env=pool.environment(),
                                  cwd=tmp_path, stderr=subprocess.DEVNULL)
        pool.wait(lambda n=name[:120]: n in [w["name"] for w in pool.client("workers", "--json")["workers"]], "the worker", 20)
        worker.terminate()
        assert worker.wait(20) == 0
    assert accepted == len(HOSTILE), "hostile names are names: the jobs ran"
    assert pool.stop() == 0
    calls = calls_of(trace)
    assert len(calls) > 500 and any("store.sqlite" in call for call in calls), "the trace has seen something"
    assert [call for call in calls if MARK in call] == []
    assert sum(call.startswith("execve") for call in calls) == 1  # the program itself
    mine = (str(pool.state), "/dev/null")
    way = {str(path) for path in pool.state.parents}  # mkdir -p
    outside = {path for path in written_paths(calls) - way if not path.startswith(mine)}
    assert outside == set()
    assert not list(tmp_path.glob(f"**/*{MARK}*"))


def test_worker_needs_no_rights_and_writes_nothing(cluster, program, small, tmp_path):
    """The worker runs as nobody, if possible. It opens nothing for writing, makes no file, and starts no program. If it cannot run as another
    user, it may open the coordinator's memory."""
    pool = cluster("tls")
    trace = tmp_path / "trace"
    for path in [tmp_path, *tmp_path.parents]:
        if path == pathlib.Path("/tmp") or os.geteuid() != 0:
            break
        path.chmod(0o755)
    drop = []
    if os.geteuid() == 0:
        drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--"]
        pool.tls.chmod(0o755)
        os.chown(pool.tls / "worker.key", 65534, 65534)
    worker = pool.worker("w", command=[*TRACE, trace, *drop, program("coppice-worker")])
    result = pool.client("submit", small(), "--data", ".", "--json", "--quiet")
    assert result["digest"] == GOLDEN
    pool.client("drain", "worker-w")
    assert worker.wait(30) == 0
    calls = calls_of(trace)
    first = max(i for i, call in enumerate(calls) if call.startswith("execve") and "coppice-worker" in call and "= 0" in call)
    calls = calls[first + 1:]
    assert len(calls) > 20 and any("worker.pem" in call for call in calls), "the trace has seen something"
    assert {path for path in written_paths(calls) if drop or not re.fullmatch(r"/proc/\d+/fd/\d+", path)} == set()
    assert not any(call.startswith(("execve", "fork", "vfork")) for call in calls)
