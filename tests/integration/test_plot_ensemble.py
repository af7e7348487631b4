"""`coppice plot` of ensembles: it draws the test error against the number of thinned networks (Srivastava et al. 2014, figure 11) from the JSON of
`coppice eval`. Tests what is drawn where, and which input is refused."""

import json
import re
import subprocess
import xml.etree.ElementTree as tree

import numpy as np
import pytest
from PIL import Image

COUNTS = "1,2,5,10,40"


def drawn(path):
    """Parses an SVG; returns curves (colour, dashes, points), bars (colour, x, top, bottom) and bands (colour, top, bottom)."""
    lines, bars, bands = [], [], []
    for element in tree.parse(path).iter():
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", element.get("d", ""))]
        points = np.array(numbers[: len(numbers) // 2 * 2]).reshape(-1, 2)
        width = element.get("stroke-width") if element.get("stroke", "none") != "none" else None
        if width == "1.8":
            lines.append((element.get("stroke"), element.get("stroke-dasharray"), points))
        if width == "1" and len(points) == 2 and points[0, 0] == points[1, 0] and "15%" not in element.get("stroke"):
            bars.append((element.get("stroke"), points[0, 0], *sorted(points[:, 1])))
        if element.get("fill-opacity") == "0.12":
            bands.append((element.get("fill"), points[:, 1].min(), points[:, 1].max()))
    return lines, bars, bands


@pytest.fixture
def results(coppice, small, tmp_path):
    """Writes the results of three averages to a.json, g.json and w.json; returns them."""
    coppice("run", small(steps=25), "--workers", 1, "--out", tmp_path / "r", "--quiet")
    printed = {}
    for name, options in (("a", ["--ensemble", COUNTS]), ("g", ["--ensemble", COUNTS, "--average", "geometric"]), ("w", ["--average", "weight-scaling"])):
        printed[name] = coppice("eval", "r", "--data", ".", *options, "--json", "--quiet")
        (tmp_path / f"{name}.json").write_text(json.dumps(printed[name]) + "\n")
    return printed


def test_points_bars_and_level_are_drawn_at_the_right_places(coppice, results, tmp_path):
    assert coppice("plot", "a.json", "g.json", "w.json", "-o", "f.svg", "--json") == {"output": "f.svg", "curves": 3}
    lines, bars, bands = drawn(tmp_path / "f.svg")
    curves = [line for line in lines if len(line[2]) == 5]
    levels = [line for line in lines if len(line[2]) == 2 and line[2][1, 0] - line[2][0, 0] > 400]
    assert len(curves) == 2 and len(levels) == 1 and len(bands) == 1
    assert len({color for color, _, _ in curves + levels}) == 3 == len({dash for _, dash, _ in curves + levels})
    rows = [*results["a"]["members"], *results["g"]["members"], *results["w"]["members"]]
    errors = np.array([row["error"] for row in rows])
    y = np.concatenate([curves[0][2][:, 1], curves[1][2][:, 1], levels[0][2][:1, 1]])
    assert np.ptp(errors) > 0.02
    slope, offset = np.polyfit(errors, y, 1)
    assert slope < 0, "a larger error is higher up"
    np.testing.assert_allclose(slope * errors + offset, y, atol=0.02)
    for color, _, points in curves:
        logs = np.log([row["members"] for row in results["a"]["members"]])
        fit = np.polyfit(logs, points[:, 0], 1)
        np.testing.assert_allclose(np.polyval(fit, logs), points[:, 0], atol=0.02)
        own = [bar for bar in bars if bar[0] == color]
        assert [bar[1] for bar in own] == list(points[:, 0])
    half = [(bottom - top) / 2 for _, _, top, bottom in bars]
    np.testing.assert_allclose(half, [-slope * row["error_se"] for row in rows[:-1]], atol=0.02)
    color, top, bottom = bands[0]
    assert color == levels[0][0] and (bottom - top) / 2 == pytest.approx(-slope * rows[-1]["error_se"], abs=0.02)
    assert {bar[1] for bar in bars if bar[0] == curves[0][0]}.isdisjoint(bar[1] for bar in bars if bar[0] == curves[1][0]), "side by side"


def test_one_stream_of_all_results_gives_the_same_chart(program, coppice, results, tmp_path):
    coppice("plot", "a.json", "g.json", "w.json", "-o", "f.svg")
    pretty = "\n\n".join(json.dumps(results[name], indent=2) for name in "agw")
    subprocess.run([program("coppice"), "plot", "-", "-o", "s.svg"], cwd=tmp_path, input=pretty.encode(), check=True, timeout=60)
    assert [np.array_equal(a[2], b[2]) for a, b in zip(drawn(tmp_path / "f.svg")[0], drawn(tmp_path / "s.svg")[0])] == [True] * 6
    parts = [dict(results["a"], members=[row]) for row in reversed(results["a"]["members"])]
    (tmp_path / "parts.json").write_text("\n".join(map(json.dumps, parts)))
    assert coppice("plot", "parts.json", "-o", "p.svg", "--json")["curves"] == 1
    coppice("plot", "a.json", "-o", "a.svg")
    assert np.array_equal(drawn(tmp_path / "p.svg")[0][0][2], drawn(tmp_path / "a.svg")[0][0][2]), "parts of a curve go together"


def test_results_of_two_models_give_two_curves(coppice, results, tmp_path):
    other = dict(results["a"], digest="0" * 64, members=[dict(row, error=row["error"] / 2) for row in results["a"]["members"]])
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert coppice("plot", "a.json", "other.json", "-o", "f.png", "--json")["curves"] == 2
    assert Image.open(tmp_path / "f.png").size == (1120, 800)


def row(**change):
    return {"members": 2, "error": 0.1, "error_se": 0.01, **change}


def result(**change):
    return json.dumps({"average": "arithmetic", "members": [row()], "samples": 130, **change})


@pytest.mark.asan
def test_invalid_result_is_reported_with_its_line(coppice, small, tmp_path):
    coppice("run", small(steps=3), "--workers", 1, "--out", tmp_path / "r", "--quiet")
    for text, sentence in (
        ("", "x.json is empty: expected an ensemble result"),
        ("error 1.2 %\n", "x.json:1: not JSON: expected an object, {...}"),
        (result() + "\n" + result()[:-9], "x.json:2: not JSON: the object has no end"),
        (result() + '\n{"loss":1,"error":2}', 'x.json:2: unknown field "loss"'),
        ("{}", "x.json:1 is not an ensemble result: expected the output of `coppice eval --ensemble K,K,... --json`"),
        (result(members=[]), "x.json:1 is not an ensemble result"),
        (result(members=[row(), row(members=0)]), "x.json:1: members[1] is incomplete: expected the number of members, error from 0 to 1 and error_se"),
        (result(members=[{"members": 3}]), "x.json:1: members[0] is incomplete"),
        (result(members=[row(error=1.5)]), "x.json:1: members[0] is incomplete"),
        (result(members=[row(error="a")]), 'x.json:1: members[0].error is "a": expected a number'),
        (result() + result(samples=99), "x.json covers 130 samples, but x.json covers 99: expected results of the same test part"),
        (result() * 65, "x.json:1 has too many results: at most 64"),
    ):
        (tmp_path / "x.json").write_text(text)
        done = coppice("plot", "x.json", "-o", "f.svg", status=2)
        assert sentence in done.stderr, (text, done.stderr)
        assert not (tmp_path / "f.svg").exists()
    (tmp_path / "x.json").write_text(result())
    for arguments, sentence in (
        (["x.json", "r", "-o", "f.svg"], "cannot mix result files with jobs"),
        (["x.json", "-o", "f.gif"], "expected a name that ends in .svg or .png"),
        (["x.json"], "expected -o FILE"),
        (["y.json", "-o", "f.svg"], "run folder y.json does not exist"),
    ):
        assert sentence in coppice("plot", *arguments, status=2).stderr
    assert not list(tmp_path.glob("f.*"))
