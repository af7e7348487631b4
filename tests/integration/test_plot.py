"""`coppice plot` draws learning curves of run folders and jobs."""

import xml.etree.ElementTree as tree


def strokes(path):
    """The lines in an SVG: their colours and dash patterns."""
    found = set()
    for element in tree.parse(path).iter():
        if element.get("stroke", "none") != "none" and element.get("stroke-width") == "1.8":
            found.add((element.get("stroke"), element.get("stroke-dasharray")))
    return found


def test_plot_draws_curves_of_runs(coppice, small, tmp_path):
    for seed in (1, 2):
        coppice("run", small(), "--set", f"seed={seed}", "--workers", 1, "--out", tmp_path / f"r{seed}", "--quiet")
    coppice("plot", tmp_path / "r1", "-o", "one.svg")
    one = strokes(tmp_path / "one.svg")
    assert len({color for color, _ in one}) == 2, "training and test have colours of their own"
    assert len({dash for _, dash in one}) == 2, "and dashes, for those who see no colours"
    coppice("plot", tmp_path / "r1", tmp_path / "r2", "-o", "two.svg")
    assert len({dash for _, dash in strokes(tmp_path / "two.svg")}) == 4
    result = coppice("plot", tmp_path / "r1", "-o", "one.png", "--json")
    assert result == {"output": "one.png", "curves": 1}
    assert (tmp_path / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    odd = 'a "quoted"\t\\name'  # the JSON must still be valid
    assert coppice("plot", tmp_path / "r1", "-o", odd + ".svg", "--json")["output"] == odd + ".svg"
    replayed = coppice("replay", tmp_path / "r1", "--step", 2, "--shard", 0, "-o", odd + ".safetensors", "--json")
    assert replayed["output"] == odd + ".safetensors"


def test_plot_draws_curves_of_a_coordinator_job(cluster, small):
    pool = cluster("ipc")
    pool.worker("w")
    pool.client("submit", small(), "--data", ".", "--quiet")
    pool.client("plot", "1", "-o", "job.svg")
    assert len(strokes(pool.folder / "job.svg")) == 2
    assert "job 7" in pool.client("plot", "7", "-o", "none.svg", status=2).stderr
    assert not (pool.folder / "none.svg").exists()
    assert pool.status()["samples_per_s"] > 0, "an ended job still tells its speed"


def test_unsuitable_plot_input_is_refused(coppice, small, tmp_path):
    coppice("run", small(steps=3), "--workers", 1, "--out", tmp_path / "r", "--quiet", "--set", "evaluate.every=9")
    for arguments, sentence in (
        (("r", "-o", "x.gif"), "expected a name that ends in .svg or .png"),
        (("nowhere", "-o", "x.png"), '"nowhere" is neither a file nor a folder'),
        (("r",), "expected -o FILE"),
    ):
        done = coppice("plot", *arguments, status=2)
        assert sentence in done.stderr
    assert not (tmp_path / "x.png").exists() and not (tmp_path / "x.gif").exists()
