"""The coordinator's HTTP server: its routes, their credentials, their errors, and the figures for Prometheus."""

import http.client
import json
import re
import socket
import subprocess
import time

import pytest
from integration_tools import free_port

HEALTH = ["/livez", "/readyz"]


class Web:
    """A coordinator with an HTTP server, and plain requests to it."""

    def __init__(self, pool, port):
        self.pool, self.port = pool, port

    def ask(self, path, verb="GET", token=True, headers=(), body=None):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = dict(headers)
        if token:
            headers["Authorization"] = f"Bearer {self.pool.token() if token is True else token}"
        link.request(verb, path, body, headers)
        reply = link.getresponse()
        text = reply.read().decode()
        link.close()
        return reply, json.loads(text) if reply.getheader("Content-Type") == "application/json" else text


@pytest.fixture
def web(cluster):
    port = free_port()
    return Web(cluster("tcp", start=False).start("--http", f"127.0.0.1:{port}"), port)


def routes(root):
    """The routes of the table in the source."""
    return re.findall(r'ROUTE\("(\w+)", "([^"]+)"', (root / "coordinator/api/http.c").read_text())


@pytest.mark.asan
def test_every_route_refuses_without_credentials(web, root):
    listed = routes(root)
    assert len(listed) > 8 and ("GET", "/metrics") in listed
    let_in = []
    for verb, path in listed:
        path = path.replace("{job}", "1").replace("{name}", "nobody")
        for token in (None, "wrong", web.pool.token()[:-1], web.pool.token() + "x", "x" * 5000):
            reply, answer = web.ask(path, verb, token=token)
            if reply.status != 401 or answer["error"]["code"] != "DENIED":
                let_in.append((verb, path, token, reply.status))
            assert reply.getheader("WWW-Authenticate") == "Bearer"
    assert let_in == []


def test_probes_need_no_credentials(web):
    for path in HEALTH:
        reply, text = web.ask(path, token=None)
        assert (reply.status, text) == (200, "ok\n")
        reply, text = web.ask(path, "HEAD", token=None)
        assert (reply.status, text) == (200, "")
        assert web.ask(path, "POST", token=None)[0].status == 404


@pytest.mark.asan
def test_json_equals_that_of_the_command(web, small):
    pool = web.pool
    pool.worker("one", "--threads", "1")
    pool.client("submit", small(steps=30), "--data", ".", "--timeout", "20")
    job = web.ask("/api/v1/jobs/1")[1]
    assert job == pool.status(1) and job["state"] == "COMPLETED" and job["step"] == 30
    assert web.ask("/api/v1/jobs")[1] == pool.client("jobs", "--json")
    assert web.ask("/api/v1/jobs?limit=5&name=small&state=COMPLETED")[1]["jobs"] == [job]
    assert web.ask("/api/v1/jobs?name=other")[1]["jobs"] == []
    workers = web.ask("/api/v1/workers")[1]
    assert [w["name"] for w in workers["workers"]] == ["one"]
    assert workers.keys() == pool.client("workers", "--json").keys()
    history = web.ask("/api/v1/jobs/1/history?steps=true")[1]
    assert [point["step"] for point in history["steps"]] == list(range(1, 31))
    assert any("COMPLETED" in event["text"] for event in web.ask("/api/v1/jobs/1/logs")[1]["events"])
    assert web.ask("/api/v1/info")[1]["jobs"] == 1
    assert web.ask("/api/v1/data")[1]["sets"] == pool.client("data", "list", "--json")["sets"]


def test_jobs_are_paused_resumed_and_canceled(web, small):
    web.pool.client("submit", small(steps=100000), "--data", ".", "--no-wait")
    assert web.ask("/api/v1/jobs/1/pause", "POST")[0].status == 200
    web.pool.wait(lambda: web.pool.status(1)["state"] == "PAUSED", "the pause")
    assert web.ask("/api/v1/jobs/1/resume", "POST")[0].status == 200
    web.pool.wait(lambda: web.pool.status(1)["state"] != "PAUSED", "the end of the pause")
    assert web.ask("/api/v1/jobs/1/cancel", "POST")[0].status == 200
    web.pool.wait(lambda: web.pool.status(1)["state"] == "CANCELED", "the end of the job")


@pytest.mark.asan
@pytest.mark.parametrize("path, verb, status, code, field, words", [
    ("/api/v1/jobs/99", "GET", 404, "NOT_FOUND", None, "there is no job 99"),
    ("/api/v1/jobs/abc", "GET", 400, "INPUT", "job", "expected a whole number"),
    ("/api/v1/jobs/99999999999999999999", "GET", 400, "INPUT", None, "job"),
    ("/api/v1/jobs?limit=-1", "GET", 400, "INPUT", "limit", "expected a whole number"),
    ("/api/v1/jobs?limti=1", "GET", 400, "INPUT", "limti", "unknown argument"),
    ("/api/v1/jobs?state=asleep", "GET", 400, "INPUT", None, "asleep"),
    ("/api/v1/jobs?name=%22%7D%0a", "GET", 200, None, None, None),
    ("/api/v1/jobs?" + "&".join(f"a{i}=1" for i in range(50)), "GET", 400, "INPUT", None, "at most 8 arguments"),
    ("/api/v1/workers/nobody/drain", "POST", 404, "NOT_FOUND", None, "nobody"),
    ("/api/v1/jobs/1/pause", "GET", 405, "USAGE", None, "is for POST"),
    ("/api/v1/nothing", "GET", 404, "NOT_FOUND", None, "there is no GET"),
    ("/../../etc/passwd", "GET", 404, "NOT_FOUND", None, "there is no GET"),
])
def test_bad_request_gets_a_clear_error(web, path, verb, status, code, field, words):
    reply, answer = web.ask(path, verb)
    assert reply.status == status, answer
    if code:
        assert reply.getheader("Content-Type") == "application/json"
        error = answer["error"]
        assert set(error) == {"code", "message", "field"}
        assert (error["code"], error["field"]) == (code, field) and words in error["message"], error


def test_other_host_names_are_refused(web):
    """A page of another site may point its own name at 127.0.0.1 (DNS rebinding)."""
    for host in ("evil.example", f"evil.example:{web.port}", "127.0.0.1.evil.example", "", "localhost.evil.example:80"):
        for path in ("/api/v1/jobs", *HEALTH):
            reply, answer = web.ask(path, headers={"Host": host})
            assert reply.status == 421 and answer["error"]["code"] == "DENIED", (host, path)
    for host in ("localhost", "127.0.0.1", f"localhost:{web.port}", "[::1]", f"[::1]:{web.port}"):
        assert web.ask("/livez", headers={"Host": host})[0].status == 200, host


@pytest.mark.asan
def test_large_requests_are_refused(web):
    reply, answer = web.ask("/api/v1/jobs/1/pause", "POST", headers={"Content-Length": str(2 << 20)})
    assert reply.status == 413 and answer["error"]["code"] == "LIMIT"
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as link:
        link.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        first = link.recv(100)
        assert re.match(rb"HTTP/1.1 4\d\d ", first), first
    assert web.ask("/readyz")[0].status == 200


def test_slow_clients_are_closed_and_disturb_nobody(web):
    """40 clients send one byte of a header at a time. Each is closed after 10 s, and other requests are answered meanwhile."""
    slow = [socket.create_connection(("127.0.0.1", web.port), timeout=30) for _ in range(40)]
    for link in slow:
        link.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    begin = time.monotonic()
    open_links = list(slow)
    while open_links and time.monotonic() - begin < 25:
        assert web.ask("/livez")[0].status == 200
        for link in list(open_links):
            try:
                link.sendall(b"X")
                link.setblocking(False)
                if link.recv(1) == b"":
                    open_links.remove(link)
            except BlockingIOError:
                pass
            except OSError:
                open_links.remove(link)
            finally:
                link.setblocking(True)
        time.sleep(0.25)
    assert not open_links and time.monotonic() - begin > 8
    for link in slow:
        link.close()


# ---- start and stop ----


@pytest.mark.parametrize("address, words", [
    ("127.0.0.1", "expected ADDRESS:PORT"), ("nowhere.example:80", "expected ADDRESS:PORT"), ("127.0.0.1:99999", "expected ADDRESS:PORT"),
    ("0.0.0.0:0", "--insecure"), ("[::]:0", "--insecure"),
])
def test_bad_address_is_refused(program, tmp_path, address, words):
    done = subprocess.run([program("coppice-coordinator"), "--listen", f"ipc://{tmp_path}/s", "--state", tmp_path / "state", "--http", address],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_busy_port_is_a_clear_error(web, program, tmp_path):
    done = subprocess.run([program("coppice-coordinator"), "--listen", f"ipc://{tmp_path}/s", "--state", tmp_path / "other",
                           "--http", f"127.0.0.1:{web.port}"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and f"another program listens on --http 127.0.0.1:{web.port}" in done.stderr


@pytest.mark.asan
def test_held_request_ends_with_the_coordinator(web, small):
    """A request for later lines of a log is held until there are some, or the coordinator stops."""
    web.pool.client("submit", small(steps=100000), "--data", ".", "--no-wait")
    link = socket.create_connection(("127.0.0.1", web.port), timeout=30)
    link.sendall(f"GET /api/v1/jobs/1/logs?after=1000000&hold_ms=20000 HTTP/1.1\r\nHost: localhost\r\n"
                 f"Authorization: Bearer {web.pool.token()}\r\n\r\n".encode())
    link.settimeout(0.5)
    with pytest.raises(TimeoutError):
        link.recv(1)
    link.settimeout(20)
    assert web.pool.stop() == 0
    reply = link.recv(1000)
    assert reply == b"" or reply.startswith(b"HTTP/1.1 503 "), reply
    link.close()


# ---- Prometheus ----


@pytest.mark.asan
def test_metrics_are_read_by_prometheus_parser(web, small, root):
    from prometheus_client.parser import text_string_to_metric_families

    pool = web.pool
    pool.worker("one", "--threads", "1")
    pool.client("submit", small(steps=30), "--data", ".", "--timeout", "20")
    reply, text = web.ask("/metrics")
    assert reply.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8" and text.endswith("\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {(sample.name, *sample.labels.values()): sample.value for family in families.values() for sample in family.samples}
    assert values["coppice_jobs", "COMPLETED"] == 1 and values["coppice_jobs", "RUNNING"] == 0
    assert values[("coppice_steps_total",)] == 30 and values[("coppice_samples_total",)] == 2 * 620 + 4 * 50
    assert sum(value for key, value in values.items() if key[0] == "coppice_workers") == 1
    status = pool.status(1)
    assert values[("coppice_leases_given_total",)] == status["leases_given"]
    assert values[("coppice_step_duration_seconds_sum",)] == pytest.approx(status["seconds"], rel=1e-6)
    assert values[("coppice_checkpoints_total",)] >= 1
    assert abs(values[("coppice_last_checkpoint_timestamp_seconds",)] - time.time()) < 60
    for family in families.values():
        assert family.name.startswith("coppice_") and family.documentation
        if family.type == "histogram":
            buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
            assert buckets == sorted(buckets) and buckets[-1] == values[(family.name + "_count",)]
    # docs/reference/http.md lists exactly these metrics, with type and help, and the routes of the source
    page = (root / "docs/reference/http.md").read_text()
    listed = re.findall(r"^\| `(coppice_\w+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    suffix = {"counter": "_total"}
    assert sorted(listed) == sorted((f.name + suffix.get(f.type, ""), f.type, f.documentation.rstrip(".")) for f in families.values())
    assert set(re.findall(r"^\| `(GET|POST) (\S+)`", page, re.MULTILINE)) == set(routes(root)) | {("GET", path) for path in HEALTH}


def test_counters_do_not_fall_when_a_job_is_removed(web, small):
    web.pool.worker("one", "--threads", "1")
    web.pool.client("submit", small(steps=20), "--data", ".", "--timeout", "20")
    web.pool.client("rm", 1)
    text = web.ask("/metrics")[1]
    assert "\ncoppice_steps_total 20\n" in text and 'coppice_jobs{state="COMPLETED"} 0\n' in text
