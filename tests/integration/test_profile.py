"""`coppice run --profile` and `--trace`: the figures fit each other and the run, and change no weight."""

import json
import subprocess

import pytest

JOB = """name: profile
data: {source: synthetic-digits, samples: 2000}
model:
  - dropout: {p: 0.2}
  - linear: {units: 96}
  - relu
  - dropout: {p: 0.5}
  - linear: {units: 10}
train: {steps: 60, batch: 128, shards: 4}
optimizer: {sgd: {rate: 0.05, momentum: 0.9}}
evaluate: {every: 1000}
"""
KINDS = ["dropout", "linear", "relu", "dropout", "linear"]


@pytest.fixture(scope="module")
def run(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    (folder / "job.yaml").write_text(JOB)

    def call(*options, status=0):
        command = [program("coppice"), "run", "job.yaml", "--workers", "2", "--out", f"run{len(list(folder.iterdir()))}", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        return done

    call.folder = folder
    return call


@pytest.fixture(scope="module")
def summary(run):
    return json.loads(run("--json", "--profile", "--trace", "trace.json").stdout)


@pytest.fixture(scope="module")
def events(run, summary):
    assert summary["profile"]
    return json.loads((run.folder / "trace.json").read_text())["traceEvents"]


def test_profile_keeps_the_digest(run, summary):
    plain = json.loads(run("--json").stdout)
    assert "profile" not in plain
    assert plain["digest"] == summary["digest"]


def test_parts_of_a_step_add_up(summary):
    profile = summary["profile"]
    assert [layer["kind"] for layer in profile["layers"]] == KINDS
    assert (profile["steps"], profile["threads"]) == (60, 2)
    parts = sum(layer[f"{phase}_ms"] for layer in profile["layers"] for phase in ("forward", "mask", "weights", "input"))
    parts += sum(profile[f"{name}_ms"] for name in ("samples", "loss", "sum", "update", "transfer", "wait"))
    assert parts == pytest.approx(profile["step_ms"], rel=1e-6)
    assert 0 < 60 * profile["step_ms"] <= 1000 * summary["seconds"] * 1.5 + 200


def test_each_layer_has_its_phases(summary):
    first_mask, first, relu, second_mask, second = summary["profile"]["layers"]
    for mask in (first_mask, second_mask):
        assert mask["mask_ms"] > 0 == mask["forward_ms"]
    for linear in (first, second):
        assert linear["forward_ms"] > 0 and linear["weights_ms"] > 0 and linear["gflops"] > 0 and linear["dense_gflops"] > 0
    assert first["input_ms"] == 0 < second["input_ms"]  # nothing needs the gradient of the samples
    assert relu["forward_ms"] > 0 and relu["input_ms"] > 0 and "gflops" not in relu
    assert second["input_zeros"] == pytest.approx(0.75, abs=0.15)  # relu and dropout
    assert 0 < second["needed_gflops"] < second["gflops"]
    assert first["gradient_zeros"] == pytest.approx(second["input_zeros"], abs=0.01)


def test_profile_is_printed_as_tables(run):
    text = run("--profile").stdout
    for words in ("FORWARD", "WEIGHTS", "1 linear", "3 dropout", "update", "wait"):
        assert words in text


def test_trace_names_processes_and_threads(events):
    names = {(e["name"], e["args"]["name"]) for e in events if e["ph"] == "M" and "name" in e["args"]}
    for process in ("coordinator", "thread-1", "thread-2"):
        assert ("process_name", process) in names
    assert ("thread_name", "compute 1") in names and ("thread_name", "loop") in names
    known = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} <= known


def spans_of_threads(events):
    threads = {}
    for e in events:
        if e["ph"] == "X":
            threads.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"], e))
    return threads


def test_spans_nest(events):
    """Two spans of a thread overlap only if one contains the other. A step contains its layers."""
    for spans in spans_of_threads(events).values():
        spans.sort(key=lambda s: (s[0], -s[1]))
        stack = []
        for begin, end, event in spans:
            while stack and stack[-1][1] <= begin + 1e-6:
                stack.pop()
            assert not stack or end <= stack[-1][1] + 1e-3, f"{event} ends after {stack[-1][2]}"
            if event["cat"] in ("forward", "weights", "mask", "loss"):
                assert stack and stack[0][2]["name"] == f"step {event['args']['step']}"
            stack.append((begin, end, event))


def test_trace_has_all_steps_and_layers(events, summary):
    spans = [e for e in events if e["ph"] == "X"]
    assert {e["name"] for e in spans if e["cat"] == "step"} == {f"step {i}" for i in range(1, 61)}
    for name in ("0 dropout mask", "1 linear forward", "1 linear weights", "4 linear input gradient", "2 relu forward", "update", "loss"):
        assert any(e["name"] == name for e in spans), name
    assert len([e for e in spans if e["name"] == "1 linear forward"]) >= 60
    total = max(e["ts"] + e["dur"] for e in spans)
    assert min(e["ts"] for e in spans) == 0
    assert total <= 1e6 * summary["seconds"] + 5e6
    workers = [s for s in spans_of_threads(events).values() if any(e["cat"] == "step" for _, _, e in s)]
    assert len(workers) == 2
    for lane in workers:  # steps and waits fill the time between the first and the last step
        top = [(b, e) for b, e, event in lane if event["cat"] in ("step", "wait", "input")]
        steps = [(b, e) for b, e, event in lane if event["cat"] == "step"]
        first, last = min(b for b, _ in steps), max(e for _, e in steps)
        covered, at = 0, first
        for begin, end in sorted(top):
            covered += max(0, min(end, last) - max(begin, at))
            at = max(at, end)
        assert covered >= 0.5 * (last - first)


def test_trace_into_a_missing_folder_is_refused_before_training(run):
    done = run("--trace", "absent/trace.json", status=2)
    assert "absent" in done.stderr


def test_speed_is_the_mean_over_the_seconds_of_training(coppice, small):
    path = small(40, "evaluate: {every: 1, on: test}\n")
    result = coppice("run", path, "--json")
    batch = 50
    assert result["ms_per_step"] == pytest.approx(1e3 * result["seconds"] / 40)
    assert result["samples_per_s"] == pytest.approx(batch * 40 / result["seconds"])
    assert result["total_seconds"] > result["seconds"]
