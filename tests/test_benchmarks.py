"""Every benchmark of `make bench` runs, in its smallest form: it cannot rot unseen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = re.search(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
NEEDS = {}
"""Per benchmark, the packages of the extra `bench` that it compares with."""
WITH_REAL = set()
"""Benchmarks on the real rasters that `SALIBI_REAL` names."""
SLOW = set()
"""Benchmarks whose smallest form is more than a few seconds."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NAMES]
)
def test_it_runs_and_prints_its_machine(name, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason="a peer; pip install -e '.[bench]'")
    if (
        name in WITH_REAL
        and not Path(os.environ.get("SALIBI_REAL", ROOT / "../shared/real")).is_dir()
    ):
        pytest.skip("no real rasters; name their folder in SALIBI_REAL")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--smallest"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{os.cpu_count()} cores" in done.stdout
