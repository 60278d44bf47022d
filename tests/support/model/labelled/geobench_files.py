"""Small GEO-Bench v1 tasks, in the form of the published ones: names, types, quirks and pickles.

Every class has means of its own, so that a probe has something to find.
"""

from __future__ import annotations

import datetime as dt
import json
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from affine import Affine
from rasterio.crs import CRS

from salibi_model.evals.datasets.geobench_tasks import GEOBENCH_TASKS, GeoBenchSpec

PARTITIONS = ("0.01x_train", "0.02x_train", "0.05x_train", "0.10x_train", "0.20x_train")
PARTITIONS += ("0.50x_train", "1.00x_train", "default")
HYPERSPECTRAL = "Neon"
POWER = {"05 - VH.LEE Filtered", "06 - VV.LEE Filtered"}
COMPLEX = {"01 - VH.Real", "02 - VH.Imaginary", "03 - VV.Real", "04 - VV.Imaginary"}
COMPLEX |= {"07 - VH.LEE Filtered.Real", "08 - VV.LEE Filtered.Imaginary"}
COARSER = 10
"""Pixels of NeonTree's photograph to one of its canopy height."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Kind of a task's values."""

    dtype: str
    mean: float
    std: float
    date: dt.date | None = None
    has_crs: bool = True


DAY = dt.date(2016, 1, 1)
LOOKS = {
    "m-bigearthnet": Look(dtype="float32", mean=1500, std=300),
    "m-so2sat": Look(dtype="float32", mean=0.15, std=0.03, has_crs=False),
    "m-brick-kiln": Look(dtype="float32", mean=1200, std=200),
    "m-forestnet": Look(dtype="uint8", mean=90, std=12, date=DAY),
    "m-eurosat": Look(dtype="int16", mean=1500, std=250),
    "m-pv4ger": Look(dtype="uint8", mean=110, std=20),
    "m-pv4ger-seg": Look(dtype="uint8", mean=110, std=20),
    "m-chesapeake": Look(dtype="float32", mean=0.4, std=0.08),
    "m-cashew-plant": Look(dtype="float32", mean=1500, std=250, date=DAY, has_crs=False),
    "m-SA-crop-type": Look(dtype="int16", mean=60, std=9),
    "m-nz-cattle": Look(dtype="uint8", mean=110, std=20, date=DAY),
    "m-NeonTree": Look(dtype="uint8", mean=110, std=20),
}


def write_all(root: Path, *, num_train: int = 12, num_valid: int = 4, num_test: int = 6) -> Path:
    """Write all twelve tasks in the layout of ``$GEO_BENCH_DIR``; give ``root`` back."""
    for name, spec in GEOBENCH_TASKS.items():
        folder = root / spec.benchmark / name
        write_task(folder, name, num_train=num_train, num_valid=num_valid, num_test=num_test)
    return root


def write_task(
    folder: Path,
    name: str,
    *,
    num_train: int,
    num_valid: int,
    num_test: int,
    px: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a task; give its folder back.

    ``px`` is 20 by default; NeonTree's is brought up to a multiple of ten.
    """
    spec, look = GEOBENCH_TASKS[name], LOOKS[name]
    rng = np.random.default_rng([seed, list(GEOBENCH_TASKS).index(name)])
    size = px or 20
    size = -(-size // COARSER) * COARSER if name == "m-NeonTree" else size
    folder.mkdir(parents=True)
    patterns = rng.normal(0, 1, (spec.num_classes, len(_files_bands(spec))))
    splits: dict[str, list[str]] = {}
    sums: dict[str, list[np.ndarray]] = {}
    labels: dict[str, Any] = {}
    for split, num in (("train", num_train), ("valid", num_valid), ("test", num_test)):
        splits[split] = [f"{split}_{k:04d}" for k in range(num)]
        for k, sample in enumerate(splits[split]):
            label = _label(spec, k, size, rng)
            bands = _bands(spec, look, label, patterns, size, rng)
            _write_sample(folder / f"{sample}.hdf5", spec, look, label, bands)
            labels[sample] = np.asarray(label).tolist()
            if split == "train":
                for band, values in bands.items():
                    sums.setdefault(band, []).append(values.ravel())
    _write_side_files(folder, spec, splits, sums, labels)
    return folder


def _files_bands(spec: GeoBenchSpec) -> list[str]:
    """Bands in the order of the file, each once."""
    return list(dict.fromkeys(source.name for source in spec.bands.values()))


def _label(spec: GeoBenchSpec, number: int, size: int, rng: np.random.Generator) -> Any:
    if spec.kind == "classification":
        return number % spec.num_classes
    if spec.kind == "multilabel":
        active = rng.random(spec.num_classes) < 0.1
        active[number % spec.num_classes] = True
        return active.astype(np.int64)
    cut = int(rng.integers(size // 4, 3 * size // 4))
    label = np.full((size, size), number % spec.num_classes, dtype=np.uint8)
    label[:, cut:] = (number + 1) % spec.num_classes
    return label


def _bands(
    spec: GeoBenchSpec,
    look: Look,
    label: Any,
    patterns: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Values by the file's band names: the class's pattern, and noise."""
    bands = {}
    for k, name in enumerate(_files_bands(spec)):
        if spec.kind == "multilabel":
            level = np.full((size, size), (label * patterns[:, k]).sum())
        else:
            level = np.broadcast_to(patterns[np.asarray(label), k], (size, size))
        noise = rng.normal(0, 1, (size, size))
        bands[name] = _values(name, look, level, noise)
    return bands


def _values(name: str, look: Look, level: np.ndarray, noise: np.ndarray) -> np.ndarray:
    if name in POWER:
        return (10 ** (-1.2 + 0.25 * level + 0.15 * noise)).astype("float32")
    if name in COMPLEX:
        return (0.3 * noise).astype("float32")
    values = look.mean + look.std * (level + 0.7 * noise)
    if name == "Canopy Height Model":
        return values[::COARSER, ::COARSER, None].astype("float32")
    if name == HYPERSPECTRAL:
        return (values[::COARSER, ::COARSER, None] + np.arange(369)).astype("int16")
    if look.dtype == "uint8":
        values = np.clip(values, 0, 255)
    return values.astype(look.dtype)


def _write_sample(
    path: Path, spec: GeoBenchSpec, look: Look, label: Any, bands: dict[str, np.ndarray]
) -> None:
    suffix = "" if look.date is None else f"_{look.date:%Y-%m-%d}"
    with h5py.File(path, "w") as file, stand_ins() as classes:
        content: dict[str, Any] = {}
        everything = dict(bands)
        if spec.kind == "segmentation":
            everything["label"] = label
        else:
            content["label"] = label
        for name, values in everything.items():
            # Cashew's labels bear no date; the cattle's do.
            dated = "" if name == "label" and spec.name == "m-cashew-plant" else suffix
            file.create_dataset(f"{name}{dated}", data=values)
            content[f"{name}{dated}"] = {
                "date": look.date if dated else None,
                "date_id": look.date if dated else None,
                "spatial_resolution": spec.gsd_m,
                "band_info": classes.band(name, spec),
                "meta_info": {"note": "generated"},
                "transform": Affine(spec.gsd_m, 0, 500000, 0, -spec.gsd_m, 4600000),
                "crs": CRS.from_epsg(32631) if look.has_crs else None,
            }
        content["bands_order"] = [name for name in content if name != "label"]
        file.attrs["pickle"] = str(pickle.dumps(content))


def _write_side_files(
    folder: Path,
    spec: GeoBenchSpec,
    splits: dict[str, list[str]],
    sums: dict[str, list[np.ndarray]],
    labels: dict[str, Any],
) -> None:
    for partition in PARTITIONS:
        share = float(partition.partition("x")[0]) if partition != "default" else 1.0
        num = max(1, round(share * len(splits["train"])))
        content = {**splits, "train": splits["train"][:num]}
        (folder / f"{partition}_partition.json").write_text(json.dumps(content, indent=2))
    stats = {
        name: {"mean": float(np.mean(all_values)), "std": float(np.std(all_values))}
        for name, all_values in ((n, np.concatenate(parts)) for n, parts in sums.items())
    }
    stats["label"] = {"mean": 0.5, "std": 0.5}
    (folder / "band_stats.json").write_text(json.dumps(stats, indent=2))
    (folder / "label_stats.json").write_text(json.dumps(labels))
    if spec.kind == "classification":
        by_class: dict[int, list[str]] = {}
        for sample, label in labels.items():
            by_class.setdefault(label, []).append(sample)
        (folder / "label_map.json").write_text(json.dumps(by_class))
    with stand_ins() as classes:
        (folder / "task_specs.pkl").write_bytes(pickle.dumps(classes.task(spec), protocol=4))


class StandIns:
    """Makes objects of classes that pickle finds under the benchmark's own names."""

    NAMES: ClassVar = {
        "geobench.dataset": ("Sentinel1", "Sentinel2", "Landsat8", "SpectralBand"),
        "geobench.label": ("Classification", "MultiLabelClassification"),
        "geobench.task": ("TaskSpecifications",),
    }
    MORE = ("ElevationBand", "HyperSpectralBands", "CloudProbability", "SegmentationClasses")

    def __init__(self) -> None:
        self.modules = {"geobench": types.ModuleType("geobench")}
        for name, classes in self.NAMES.items():
            self.modules[name] = types.ModuleType(name)
            more = self.MORE if name == "geobench.dataset" else ()
            for each in (*classes, *more):
                setattr(self.modules[name], each, type(each, (), {"__module__": name}))

    def make(self, module: str, kind: str, /, **attributes: Any) -> Any:
        instance = getattr(self.modules[module], kind)()
        instance.__dict__.update(attributes)
        return instance

    def band(self, name: str, spec: GeoBenchSpec) -> Any:
        kinds = {
            "Canopy Height Model": "ElevationBand",
            HYPERSPECTRAL: "HyperSpectralBands",
            "Cloud Probability": "CloudProbability",
            "label": "SegmentationClasses",
        }
        kind = kinds.get(name, "Sentinel2" if name[0].isdigit() else "SpectralBand")
        if name in POWER | COMPLEX:
            kind = "Sentinel1"
        if spec.name == "m-forestnet":
            kind = "Landsat8"
        return self.make(
            "geobench.dataset", kind, name=name, alt_names=(), spatial_resolution=spec.gsd_m
        )

    def task(self, spec: GeoBenchSpec) -> Any:
        names = list(spec.classes) or [f"{spec.name} {k}" for k in range(spec.num_classes)]
        if spec.kind == "multilabel":
            label = ("geobench.label", "MultiLabelClassification", {"class_name": names})
        elif spec.kind == "classification":
            label = ("geobench.label", "Classification", {"_class_names": names})
        else:
            label = ("geobench.dataset", "SegmentationClasses", {"_class_names": None})
        module, kind, attributes = label
        return self.make(
            "geobench.task",
            "TaskSpecifications",
            dataset_name=spec.name,
            benchmark_name=spec.benchmark,
            patch_size=(spec.size_px, spec.size_px),
            n_time_steps=1,
            bands_info=[self.band(name, spec) for name in _files_bands(spec)],
            label_type=self.make(module, kind, n_classes=spec.num_classes, **attributes),
            eval_metrics=None,
            spatial_resolution=np.int64(round(spec.gsd_m) or 1),
        )


@contextmanager
def stand_ins() -> Iterator[StandIns]:
    """Classes under ``geobench``'s names, for as long as something is pickled."""
    classes = StandIns()
    sys.modules.update(classes.modules)
    try:
        yield classes
    finally:
        for name in classes.modules:
            sys.modules.pop(name, None)
