"""Every benchmark of `make bench` runs, in its smallest form: it cannot rot unseen."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.data.real_catalogs import needs_real
from tests.support.paths import ROOT

NAMES = re.search(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
NEEDS = {"data/tiling": ["rio_tiler"], "data/remote_tiling": ["rio_tiler", "odc.stac"]}
"""Per benchmark, the packages of the extra `bench` that it compares with."""

NAMES = [pytest.param(n, marks=[needs_real] if n in NEEDS else []) for n in NAMES]


@pytest.mark.benchmark
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_prints_its_machine(name, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason="a peer; pip install -e '.[bench]'")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name.replace('/', '.')}", "--smallest"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{os.cpu_count()} cores" in done.stdout
