"""``salibi-data`` as a user meets it: one clear line, the right exit code, a quick start."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr
from PIL import Image

from tests.support.command_line import assert_one_line, run_process
from tests.support.data import samples
from tests.support.data.samples import run
from tests.support.paths import ROOT

COMMANDS = [
    *("catalogs", "variants", "sample", "plan", "build", "status", "info", "verify", "figure"),
    *("view", "publish", "pull", "import-pmtiles", "export-pmtiles"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"salibi-data {command}" in done.stdout.split("Example", 1)[1]


def test_an_unknown_variant_is_a_usage_error(tmp_path: Path) -> None:
    done = run("build", "--variant", "nano", "-o", str(tmp_path / "x.zarr"))
    assert_one_line(done, 2, "unknown variant 'nano'", "micro")
    assert not list(tmp_path.iterdir())


def test_an_unknown_catalog_is_a_usage_error(tmp_path: Path) -> None:
    done = run("plan", "--variant", "micro", "--catalog", "mars", "-o", str(tmp_path / "p"))
    assert_one_line(done, 2, "unknown catalog 'mars'", "sample")


def test_neither_variant_nor_plan_is_a_usage_error() -> None:
    assert_one_line(run_process("salibi-data", "build"), 2, "--variant or --plan")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--variant", "micro", "--limit", "0"], ["'--limit'", "plan --help"]),
        (["build", "--variant", "micro", "--workers", "0"], ["'--workers'", "build --help"]),
        (["plan", "--variant", "micro", "--max-cloud", "nan"], ["'--max-cloud'"]),
        (["sample", "x", "--seed", "-1"], ["'--seed'", "sample --help"]),
        (["plan"], ["--variant", "plan --help"]),
        (["info"], ["argument", "info --help"]),
        (["build", "--wrokers", "2"], ["--wrokers"]),
        (["bogus"], ["'bogus'", "--help"]),
        (["verify", "x.zarr", "--catalog", "nope"], ["--catalog", "--against-source"]),
    ],
)
def test_a_mistake_in_the_options_is_one_line(arguments: list[str], words: list[str]) -> None:
    assert_one_line(run(*arguments), 2, *words)


def test_without_arguments_it_shows_its_help() -> None:
    done = run_process("salibi-data")
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize("place", ["afile/x.zarr", "afile/more/x.zarr"])
def test_a_file_where_a_folder_should_be_says_so(
    sample_toml: str, tmp_path: Path, place: str
) -> None:
    (tmp_path / "afile").touch()
    store = ("-o", str(tmp_path / place))
    done = run("build", "--variant", "micro", "--catalog", sample_toml, *store)
    assert_one_line(done, 2, f"{tmp_path / 'afile'} is a file where a folder should be")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_says_how_to_go_on_and_leaves_no_temporary_files(
    sample_toml: str, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    scratch, store = tmp_path / "tmp", tmp_path / "x.zarr"
    scratch.mkdir()
    building = ("build", "--variant", "micro", "--catalog", sample_toml, "-o", str(store))
    with subprocess.Popen(
        samples.command(*building),
        env={**samples.environment(), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not any(scratch.glob("salibi-draft-*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        output = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert output == ("", "error: interrupted; run the same command again to go on\n")
    assert not list(scratch.iterdir())


def test_an_unreachable_catalog_fails(tmp_path: Path, no_pauses: None) -> None:
    toml = tmp_path / "closed.toml"
    toml.write_text(
        'extends = "planetary-computer"\nname = "closed"\nurl = "http://127.0.0.1:9/"\n'
    )
    store = tmp_path / "x.zarr"
    box = ("--bbox", "-92.5,41.9,-92.4,42.0")
    done = run("build", "--variant", "micro", "--catalog", str(toml), *box, "-o", str(store))
    assert_one_line(done, 1, "cannot be searched", "127.0.0.1:9")
    assert [path.name for path in tmp_path.iterdir()] == ["closed.toml"]


def test_an_empty_area_fails(sample_toml: str, tmp_path: Path) -> None:
    plan = ("plan", "--variant", "micro", "--catalog", sample_toml, "-o", str(tmp_path / "p"))
    done = run(*plan, "--bbox", "10,50,10.02,50.02")
    assert_one_line(done, 1, "none of", "0 naip", "--bbox")
    done = run(*plan, "--bbox", "10,50,10.0001,50.0001")
    assert_one_line(done, 1, "no tile of zoom 17")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,5,2,4"])
def test_a_senseless_bbox_is_refused(sample_toml: str, text: str) -> None:
    done = run("plan", "--variant", "micro", "--catalog", sample_toml, "--bbox", text)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["info", "verify", "figure", "status"])
def test_a_directory_that_is_not_a_store_fails(command: str, tmp_path: Path) -> None:
    assert_one_line(run(command, str(tmp_path)), 1, str(tmp_path))
    assert_one_line(run(command, str(tmp_path / "nowhere")), 1, "nowhere")


def test_a_store_of_a_newer_schema_fails(tmp_path: Path) -> None:
    store = tmp_path / "newer.zarr"
    zarr.create_group(store, attributes={"salibi": {"schema_version": 2}})
    assert_one_line(run("info", str(store)), 1, "schema version 2", "Upgrade")


def test_the_whole_road_from_the_command_line(sample_toml: str, tmp_path: Path) -> None:
    store, grid = str(tmp_path / "out.zarr"), str(tmp_path / "grid.png")
    arguments = ("build", "--variant", "micro", "--catalog", sample_toml, "--limit", "9")
    built = run(*arguments, "-o", store, "--json")
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert report["samples"] + sum(report["dropped"].values()) == 9
    assert built.stderr == ""  # no progress bar where there is no terminal
    assert json.loads(run("info", store, "--json").stdout)["samples"] == report["samples"]
    assert "as promised" in run("verify", store).stdout
    assert json.loads(run("status", store, "--json").stdout)["finished"]
    assert run("figure", store, "-o", grid, "-n", "2").returncode == 0
    with Image.open(grid) as image:
        assert image.width > 4 * 512
    assert "were there already" in run(*arguments, "-o", store).stdout


@pytest.mark.parametrize("name", ["grid.xyz", "."])
def test_a_figure_that_is_no_picture_is_a_usage_error(
    micro_store: Path, tmp_path: Path, name: str
) -> None:
    done = run("figure", str(micro_store), "-o", str(tmp_path / name))
    assert_one_line(done, 2, "names no picture", "grid.png")


def test_plan_prints_what_to_expect(sample_toml: str, tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.parquet"
    arguments = (
        "plan",
        "--variant",
        "micro",
        "--catalog",
        sample_toml,
        "-o",
        str(plan_file),
        "--json",
    )
    figures = json.loads(run(*arguments).stdout)
    assert figures["store_bytes"] == figures["samples"] * 65536 * (2 + 3 + 3 + 12)
    assert set(figures["scenes"]) == {"sentinel-1", "sentinel-2", "naip"}
    assert plan_file.is_file()


def test_variants_state_the_discrepancy() -> None:
    done = run("variants")
    assert "web page swaps full and micro" in " ".join(done.stdout.split())


def start_cpu_s(*arguments: str) -> float:
    """Least processor seconds of a process over several: other work on the machine adds none."""
    spans = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments], env=samples.environment(), check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spans.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spans)


MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace(os.sep, ".").removesuffix(".__init__")
    for path in (ROOT / "salibi_data").rglob("*.py")
    # Subclasses of rasterio's, Dask's, Zarr's and urllib3's.
    if path.stem not in {"gdal_opener", "dask_plugins", "prefetch", "zarr_storage", "session"}
)
HEAVY = (
    *(
        "asyncio",
        "cv2",
        "distributed",
        "mercantile",
        "obstore",
        "PIL",
        "planetary_computer",
        "pyarrow",
    ),
    *("pystac", "pystac_client", "rasterio", "requests", "scipy", "shapely", "zarr"),
)


def test_importing_the_data_half_imports_no_heavy_library() -> None:
    """They are imported where they are used: that, and not a clock, keeps every start quick."""
    code = f"import sys, {', '.join(MODULES)}\nprint(*set(sys.modules) & set({HEAVY}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=samples.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("tool", ["data", "model"])
def test_help_is_quick(tool: str) -> None:
    code = f"from salibi_cli.{tool}.app import main; main()"
    assert start_cpu_s("-c", code, "--help") < 0.5
