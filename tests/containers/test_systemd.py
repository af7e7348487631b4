"""deploy/systemd: systemd accepts the units without warnings, and they give the programs few rights."""

import re
import subprocess

import pytest


@pytest.fixture(scope="module")
def units(root, program, tmp_path_factory):
    """The units, with the programs of this build instead of the installed ones."""
    folder = tmp_path_factory.mktemp("units")
    for unit in (root / "deploy/systemd").glob("*.service"):
        text = unit.read_text()
        for name in ("coppice-coordinator", "coppice-worker"):
            text = text.replace(f"ExecStart=/usr/local/bin/{name}", f"ExecStart={program(name)}")
        (folder / unit.name).write_text(text)
    return sorted(folder.glob("*.service"))


def systemd_analyze(*words):
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True)


def test_systemd_units_are_valid(units):
    assert [unit.name for unit in units] == ["coppice-coordinator.service", "coppice-worker@.service"]
    done = systemd_analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_wrong_systemd_unit_is_detected(units, tmp_path):
    broken = tmp_path / "broken.service"
    broken.write_text(units[0].read_text().replace("ProtectSystem=strict", "ProtectSystem=sometimes"))
    assert "ProtectSystem" in systemd_analyze("verify", "--man=no", broken).stderr


def test_systemd_units_are_hardened(units):
    for unit in units:
        done = systemd_analyze("security", "--offline=true", "--threshold=20", unit)
        exposure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        assert done.returncode == 0 and float(exposure[1]) <= 2.0
