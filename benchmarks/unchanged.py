"""Compares what two versions of the code do for users: files, printed figures and command lines.

Claim: this tree and an earlier revision write the same bytes, print the same figures and have the same
command line. Both plan, build, publish, subset, merge, show and export the offline sample, train every
model, embed and evaluate, with one thread each. The commands are found through `pyproject.toml` of each
tree, so that modules may have other names in the two. The report has a row for each command line, each
JSON output, and each file or folder. Any difference is a failure, except in times, paths and help texts:

- columns and JSON fields of time (`TIMES`), and files named in `IGNORED_NAMES`, are not compared;
- modification times of the labelled images, which identify results, are set to one moment;
- the folder that a tree works in is replaced by `.` before texts are compared;
- of a checkpoint, each tensor, number and text is compared, and not the ZIP file;
- a different help text is reported as `help text differs`.

With --keep the outputs of the revision stay in a folder. They are used again as long as the revision,
the form, the commands, Python and the libraries are the same, and a run that was stopped continues.
In full it takes a quarter of an hour per tree on two cores, and 1 GB of disk.

Run: python -m benchmarks.unchanged --against REV [--quick] [--keep DIR]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe

ROOT = Path(__file__).resolve().parents[1]
STEPS = {False: 200, True: 20}
"""Training steps, in full and quick."""
LIMIT = {False: "", True: "--limit 40"}

MAKING = """
salibi-data catalogs --json
salibi-data variants --json
salibi-data forecast micro small --json
salibi-data plan --variant micro --catalog sample {limit} -o plan.parquet --json
salibi-data build --plan plan.parquet -o micro.zarr --json
salibi-data plan --variant micro --catalog sample --limit 9 -o lost/plan.parquet --json
!1 cd lost && salibi-data build --plan plan.parquet -o micro.zarr --json
salibi-data status lost/micro.zarr --json
salibi-data status micro.zarr --json
salibi-data info micro.zarr --json
salibi-data verify micro.zarr --against-source 2 --json
salibi-data build --variant micro --catalog sample --limit 9 --max-cloud 0.02 --workers 2 -o two.zarr --json
salibi-data sample labelled --labelled --json
salibi-data subset micro.zarr -o part.zarr --split train,validation --max-cloud 0.05 --limit 24 --json
salibi-data subset micro.zarr -o other.zarr --limit 12 --json
salibi-data merge part.zarr other.zarr -o merged.zarr --keep clearest --json
salibi-data publish part.zarr release --json
salibi-data pull release pulled.zarr --json
salibi-data pull release radar.zarr --split train --modalities sar,lores --json
salibi-data verify release --json
salibi-data view part.zarr --export page --json
salibi-data export-pmtiles part.zarr archives --json
salibi-data import-pmtiles --sar archives/sar_tiles.pmtile --lores archives/visual_tiles.pmtile \
  --hires archives/hires_visual_tiles.pmtile -o imported.zarr --json
salibi-data figure part.zarr -o grid.png -n 2
!1 salibi-data info nowhere.zarr
!2 salibi-data build
!2 salibi-model train --steps 0
"""
"""Commands in order; ``!CODE`` marks a command that must fail with that code.

The sample catalog lies in the folder ``cache`` of the working folder, so the build in ``lost`` finds no
sources; the failed build that it leaves is compared as well.
"""

TRAINING = """
salibi-model train --out runs/scale-alibi --model scale-alibi micro.zarr {train}
salibi-model train --out runs/croma --model croma micro.zarr {train}
salibi-model train --out runs/scale-mae --model scale-mae micro.zarr {train}
salibi-model train --out runs/original --compat original micro.zarr {train}
salibi-model train --out runs/options --weights 2,1 --crop-px 128 --accumulate 2 --ema 0.9 \
  --hide-share 0.3 --absolute-targets --fusion separate --lr-scales decoder:2 --precision bf16 \
  --probe labelled part.zarr other.zarr {train}
"""
TRAIN = (
    "--size tiny --steps {steps} --batch-size 4 --checkpoint-every {half} --keep-checkpoints 1 "
    "--validation-samples 8 --no-stop-on-collapse --device cpu"
)

USING = """
salibi-model info runs/scale-alibi --json
salibi-model embed runs/scale-alibi micro.zarr -o embeddings --json --device cpu
salibi-model embed runs/croma part.zarr -o tokens --tokens --split validation --json --device cpu
salibi-model eval knn runs/scale-alibi --data labelled --floors -o results --json --device cpu
salibi-model eval linear runs/croma --data labelled -o results --json --device cpu
salibi-model eval retrieval runs/scale-alibi --data micro.zarr -o results --json --device cpu
salibi-model reconstruct runs/scale-alibi part.zarr -o reconstruction.png -n 2 --json --device cpu
salibi-model attention runs/scale-alibi part.zarr -o attention.png --device cpu
salibi-model export runs/scale-alibi -o exported
salibi-model compare part.zarr --models no-gsd-scaling,no-contrast --steps 5 --batch-size 4 \
  --size tiny --data labelled -o comparison --json --device cpu
"""

TIMES = frozenset(
    {"time", "seconds", "seconds_left", "samples_per_s", "images_per_second", "data_wait_share"}
)
IGNORED_NAMES = frozenset({"said", "made.json", "events", "two.zarr.log.jsonl"})
"""Names of this script's own files, of files with times, and of a log whose order depends on chance."""

ABSENT, TEXTS, SHOWN, WIDTH = "not there", "help text differs", 3, 80
WORDS = frozenset({"help", "short_help", "epilog", "metavar", "options_metavar", "show_default"})
"""Fields of a command line that only people read."""

RUN = """
import sys
from importlib import import_module
tree, module, function, *sys.argv = sys.argv[1:]
found = import_module(module)
if not found.__file__.startswith(tree):
    raise SystemExit(f"{module} was taken from {found.__file__}, not from {tree}")
if sys.argv[0] == "salibi-model":
    import torch
    torch.set_num_threads(1)
"""
"""Program that runs a command of a tree: its arguments are tree, module, function and words."""

CALL = "getattr(found, function)()"
WALK = """
import enum, json, pathlib, typer

def plain(value):
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return [member.value for member in value]
    return value if isinstance(value, (str, int, float, list, tuple, type(None))) else str(value)

def told(one):
    skipped = ("callback", "params", "commands", "type_descriptor", "rich_help_panel", "type")
    return {k: plain(v) for k, v in vars(one).items() if k[0] != "_" and k not in skipped}

def walk(path, command):
    lines[path] = told(command)
    lines[path]["order"] = [p.name for p in command.params if p.param_type_name == "argument"]
    for one in command.params:
        kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else one.type
        lines[f"{path} {one.name}"] = {**told(one), "type": plain(kind), "is": one.param_type_name}
    for name, below in getattr(command, "commands", {}).items():
        walk(f"{path} {name}", below)

def called(application, *_, **__):
    walk(sys.argv[0], typer.main.get_command(application))

lines = {}
typer.Typer.__call__ = called
try:
    getattr(found, function)()
finally:
    print(json.dumps(lines))
"""
"""Program that prints the options of a command as JSON, in place of running it."""


class Tree:
    """Version of the code, and the folder that its commands work in."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root.resolve(), folder.resolve()
        project = tomllib.loads((self.root / "pyproject.toml").read_text())
        self.scripts: dict[str, str] = project["project"]["scripts"]
        packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        above = dict.fromkeys(str((self.root / package).parent) for package in packages)
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(above),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SALIBI_CACHE": "/proc/self/cwd/cache",  # a plan has this path: it must be the same
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        for name in ("said", "lost"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def work(self, *, quick: bool, at_once: int) -> None:
        """Run all commands that have not been run yet."""
        train = TRAIN.format(steps=STEPS[quick], half=STEPS[quick] // 2)
        making = MAKING.format(limit=LIMIT[quick])
        for program in self.scripts:
            self.run(f"{program} (command line)")
        for line in lines_of(making):
            self.run(line)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.run, lines_of(TRAINING.format(train=train))))
        for line in lines_of(USING):
            self.run(line)

    def run(self, line: str) -> None:
        """Run a command, and write its exit code and JSON output to a file."""
        output = self.folder / "said" / f"{hashlib.sha256(line.encode()).hexdigest()[:16]}.json"
        if output.exists():
            return
        print(f"{self.root.name}: {line}", file=sys.stderr, flush=True)
        failing, walked = line[0] == "!", line.endswith("(command line)")
        words, folder = shlex.split(line[3:] if failing else line), self.folder
        if words[0] == "cd":
            folder, words = folder / words[1], words[3:]
        if walked:
            words = words[:1]
        target = self.scripts[words[0]].split(":")
        program = RUN + (WALK if walked else CALL)
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, str(self.root), *target, *words],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        content = {"line": line, "exit code": done.returncode, "problem": "", "printed": None}
        if done.returncode != int(failing and line[1]):
            content["problem"] = done.stderr[-2000:] or "another exit code"
        elif walked or ("--json" in words and done.stdout):
            content["printed"] = json.loads(done.stdout)
        if "--labelled" in words:
            for image in (self.folder / "labelled").rglob("*.*"):
                os.utime(image, (0, 0))
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(output)

    def outputs(self) -> list[dict[str, Any]]:
        """Exit codes and JSON outputs of the commands, in the order in which they ended."""
        files = sorted((self.folder / "said").glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [json.loads(path.read_text().replace(str(self.folder), ".")) for path in files]

    def artefacts(self) -> dict[str, dict[str, str]]:
        """Everything that is compared: parts of each output and file, by name, with content or checksum."""
        parts = {
            output["line"]: dict(leaves("", {key: output[key] for key in ("exit code", "printed")}))
            for output in self.outputs()
        }
        paths = {*self.folder.iterdir(), *self.folder.glob("runs/*/*")} - {self.folder / "runs"}
        for path in sorted(path for path in paths if path.name not in IGNORED_NAMES):
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            parts[str(path.relative_to(self.folder))] = {
                part: content
                for file in files
                if file.is_file() and not IGNORED_NAMES.intersection(file.relative_to(path).parts)
                for part, content in parts_of(file, str(file.relative_to(path)), self.folder)
            }
        return parts


def lines_of(text: str) -> list[str]:
    """Split a text into command lines; a backslash at the end continues a line."""
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line]


def leaves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and value of every leaf of JSON; of times only the path."""
    if isinstance(value, Mapping | list) and value:
        for key, child in value.items() if isinstance(value, Mapping) else enumerate(value):
            path = f"{where} {key}".strip()
            yield from [(path, "")] if key in TIMES else leaves(path, child)
    else:
        yield where, json.dumps(value)


def parts_of(file: Path, name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield tensors of a checkpoint, cells and lines of a log, else the checksum of all bytes."""
    content = file.read_bytes().replace(str(folder).encode(), b".")
    if file.suffix == ".pt":
        import torch

        yield from tensors(name, torch.load(io.BytesIO(content), weights_only=True))
    elif file.name == "metrics.csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        yield f"{name} columns", ",".join(rows.fieldnames or ())
        for row in rows:
            for key, value in row.items():
                yield from leaves(f"{name} step {row['step']}", {key: value})
    elif file.suffix == ".jsonl":
        for number, line in enumerate(content.splitlines(), start=1):
            yield from leaves(f"{name} line {number}", json.loads(line))
    else:
        yield name, hashlib.sha256(content).hexdigest()


def tensors(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield checksums of tensors in nested lists and mappings, and all other values."""
    import torch

    if isinstance(value, torch.Tensor):
        numbers = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        checksum = hashlib.sha256(numbers).hexdigest()
        yield where, f"{checksum} {value.dtype} {tuple(value.shape)}"
    elif isinstance(value, Mapping | list | tuple) and value:
        for key, child in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from tensors(f"{where} {key}", child)
    else:
        yield where, repr(value)


def compare(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Make a row of the report; its second cell is the verdict."""
    differing = {
        part: f"{part}: {before.get(part, ABSENT)[:60]} -> {now.get(part, ABSENT)[:60]}"
        for part in dict.fromkeys((*before, *now))
        if before.get(part, ABSENT) != now.get(part, ABSENT)
    }
    texts = {part for part in differing if name.endswith("line)") and part.split()[-1] in WORDS}
    differences = [
        text
        for part, text in differing.items()
        if part not in texts or len(texts) == len(differing)
    ]
    verdict = "equal" if not differing else TEXTS if len(texts) == len(differing) else "differs"
    more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
    digest = hashlib.sha256(json.dumps(sorted(now.items())).encode()).hexdigest()[:12]
    short = name if len(name) <= WIDTH else f"{name[: WIDTH - 3]}..."
    return [short, verdict, str(len(now)), digest, "; ".join([*differences[:SHOWN], *more])]


def check_out(revision: str, repository: Path, folder: Path) -> None:
    """Write the files of a revision into a folder; the repository stays as it is."""
    command = ["git", "-C", str(repository), "archive", revision]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def check_kept(folder: Path, form: dict[str, Any]) -> None:
    """Refuse a folder with outputs of another revision or form; write down which are in it."""
    note = folder / "made.json"
    present = json.loads(note.read_text()) if note.exists() else form
    if present != form:
        raise SystemExit(
            f"{folder} holds outputs of {present}, not of {form}; give another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(form))


def main() -> None:
    """Run both trees and print the comparison; exit with 1 if something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="REV", help="the earlier revision")
    parser.add_argument("--quick", action="store_true", help="fewer samples and steps")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="the revision's outputs")
    parser.add_argument("--prepare", action="store_true", help="fill --keep, compare nothing yet")
    parser.add_argument("--own", type=Path, metavar="DIR", help="keep this tree's outputs, too")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another tree than this script's")
    parser.add_argument("--at-once", type=int, default=2, help="trainings that run at a time")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report in Markdown")
    arguments = parser.parse_args()
    if arguments.prepare and not arguments.keep:
        parser.error("--prepare fills a folder; name it with --keep.")
    if arguments.own and arguments.own.is_dir() and any(arguments.own.iterdir()):
        parser.error(
            f"{arguments.own} is not empty; outputs of a tree that may change are not used again."
        )
    command = ["git", "-C", str(arguments.tree), "rev-parse", f"{arguments.against}^{{commit}}"]
    revision = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    machine = describe("torch", "numpy", "zarr", "pyarrow", "rasterio", "typer")
    with tempfile.TemporaryDirectory(prefix="unchanged-") as scratch:
        kept = arguments.keep or Path(scratch) / "before"
        commands = hashlib.sha256(f"{MAKING}{TRAINING}{TRAIN}{USING}{WALK}".encode())
        form = {"revision": revision, "quick": arguments.quick, "machine": machine}
        check_kept(kept, {**form, "commands": commands.hexdigest()})
        check_out(revision, arguments.tree, Path(scratch) / revision[:12])
        before = Tree(Path(scratch) / revision[:12], kept)
        if arguments.prepare:
            before.work(quick=arguments.quick, at_once=arguments.at_once)
            return
        now = Tree(arguments.tree, arguments.own or Path(scratch) / "now")
        for tree in (before, now):
            tree.work(quick=arguments.quick, at_once=arguments.at_once)
        left, right = before.artefacts(), now.artefacts()
        problems = [f"{one['line']}: {one['problem']}" for one in now.outputs() if one["problem"]]
    rows = [compare(name, left.get(name, {}), right.get(name, {})) for name in {**left, **right}]
    failed = [row for row in rows if row[1] == "differs"]
    lines = [machine, f"Against {revision}{', quick' if arguments.quick else ''}."]
    lines += side_by_side.table(["what", "", "parts", "SHA-256", "what differs"], rows)
    lines += [*problems, f"{len(failed)} of {len(rows)} differ."]
    side_by_side.report(arguments.report, "Unchanged", lines)
    raise SystemExit(1 if failed or problems else 0)


if __name__ == "__main__":
    main()
