"""Embeds stores, rasters and images, and writes the embeddings to Zarr and GeoParquet.

Threads read ahead, in order, while the model encodes. ``docs/embeddings.md`` describes the files.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import zarr

from salibi_data.store import __version__
from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import file_sha256, hold_lock
from salibi_data.store.progress import Progress
from salibi_model.checkpoints.files import WEIGHTS_NAME, model_folder
from salibi_model.checkpoints.load import load
from salibi_model.embeddings.encode import EncodedWindows, read_ahead
from salibi_model.embeddings.inputs import EmbeddingInput
from salibi_model.embeddings.options import EmbedOptions
from salibi_model.embeddings.sources import Inputs
from salibi_model.embeddings.table import write_table
from salibi_model.embeddings.writer import (
    TABLE_NAME,
    EmbeddingFolder,
    ModalityProgress,
    read_shape,
    rows_per_part,
)
from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig

FORMAT_VERSION: Final = 1
"""Version of the layout of the files."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingResult:
    """Location and size of the embeddings of one call."""

    path: Path
    """Folder of the Zarr group, which holds the table as well."""
    num_rows: dict[str, int]
    """Number of images embedded, by modality."""
    num_empty: dict[str, int]
    """Number of images left out because all their pixels are nodata, by modality."""
    dim: int
    """Length of a vector."""
    already_complete: bool
    """Whether the embeddings were complete before the call."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "path": str(self.path)}


def embed(
    checkpoint: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    modalities: tuple[str, ...] = EmbedOptions.modalities,
    split: str | None = EmbedOptions.split,
    window_px: int | None = EmbedOptions.window_px,
    stride_px: int | None = EmbedOptions.stride_px,
    bands: tuple[str, ...] = EmbedOptions.bands,
    units: str | None = EmbedOptions.units,
    scale: float | None = EmbedOptions.scale,
    offset: float | None = EmbedOptions.offset,
    nodata: float | None = EmbedOptions.nodata,
    gsd_m: float | None = EmbedOptions.gsd_m,
    gsd_ratio: float | None = EmbedOptions.gsd_ratio,
    any_gsd: bool = EmbedOptions.any_gsd,
    tokens: bool = EmbedOptions.tokens,
    batch_size: int = EmbedOptions.batch_size,
    device: str | torch.device = "cpu",
    workers: int = EmbedOptions.workers,
    on_image: Progress | None = None,
) -> EmbeddingResult:
    """Embed all images of ``inputs``; a run that was stopped resumes when it is called again.

    A resumed run writes the same bytes as one that was never stopped, on the same device and with
    the same batch size. Vectors are pooled embeddings (rows, dim) in float32; outlines are polygons
    in longitude and latitude (OGC:CRS84).

    Args:
        checkpoint: a run's or model's folder.
        inputs: Salibi stores (folder, or URL that ends in ``.zarr``), and rasters of any size (path
            or URL that GDAL reads).
        out: folder of the Zarr group, a new one; it appears when it is complete.
        modalities: names of the model's modalities; empty: all that a store has, or the only one
            that a raster's bands fit.
        split: samples of a store to take: ``train``, ``validation``, ``test``; ``None``: all.
        window_px: edge of a raster's windows; ``None``: that of the modality in training.
        stride_px: pixels from one window to the next; ``None``: their edge, so that they touch.
        bands: names of a raster's bands, in its order; empty: those in the file.
        units: units of a raster's values, see
            :func:`salibi_model.models.units.choose_units`.
        scale: physical value = offset + scale * the file's; ``None``: the file's own, else 1.
        offset: see ``scale``.
        nodata: a value that means "not observed", in addition to the file's mask.
        gsd_m: metres per pixel of a raster; ``None``: from its georeference.
        gsd_ratio: size of a pixel over that of the training's base pixel, instead of ``gsd_m``, for
            a model that does not know the metres it was trained at.
        any_gsd: whether to accept a GSD far from those of the training.
        tokens: whether to write the tokens of each image too.
        batch_size: images encoded at a time.
        device: device to encode on.
        workers: number of threads that read.
        on_image: called with the numbers of images of all modalities (done, total).

    Raises:
        UsageError: the model cannot encode an input, all pixels are nodata, or ``out`` holds
            something else.
        StoreError: an input is damaged; the images embedded before are kept.
        CheckpointError: there is no model, or its embeddings are not finite.

    Example:
        >>> import zarr
        >>> result = embed(run_path, [store_path], out=folder / "embeddings", modalities=("lores",))
        >>> result.num_rows, result.num_empty
        ({'lores': 16}, {'lores': 0})
        >>> zarr.open_group(result.path, mode="r")["lores/embedding"].shape == (16, result.dim)
        True
    """
    options = EmbedOptions(
        modalities=modalities,
        split=split,
        window_px=window_px,
        stride_px=stride_px,
        bands=bands,
        units=units,
        scale=scale,
        offset=offset,
        nodata=nodata,
        gsd_m=gsd_m,
        gsd_ratio=gsd_ratio,
        any_gsd=any_gsd,
        tokens=tokens,
        batch_size=batch_size,
        workers=workers,
    )
    model = load(checkpoint, device=device)
    with _without_raster_warnings():
        opened = Inputs(inputs, model.config, options)
        identity = {
            "format_version": FORMAT_VERSION,
            "software_version": __version__,
            "checkpoint_sha256": file_sha256(model_folder(checkpoint) / WEIGHTS_NAME),
            "inputs": opened.facts,
            "choices": options.to_dict(),
        }
        if not Path(out).name:
            raise UsageError(f"{str(out)!r} is no name for embeddings; give another --out.")
        folder = EmbeddingFolder(Path(out), identity)
        complete = folder.is_complete
        if not complete:
            work = _Work(batch_size, workers, opened.num_images, on_image)
            folder.building.mkdir(parents=True, exist_ok=True)
            busy = UsageError(
                f"another process is embedding in {folder.building}; wait for it or stop it, or give "
                "another --out."
            )
            with hold_lock(folder.building, busy=busy):
                for name in opened.by_modality:
                    _embed_modality(model, name, opened, folder, identity, work)
                _finish(folder, opened, identity)
    return _result(folder.out, opened, already_complete=complete)


class _Work:
    """Sizes of the work's parts, and the number of images done."""

    def __init__(
        self, batch_size: int, workers: int, total: int, on_image: Progress | None
    ) -> None:
        self.batch_size, self.workers = batch_size, workers
        self._total, self._on_image = total, on_image
        self._done = 0

    def advance(self, images: int) -> None:
        """Count images that were encoded, are empty, or were embedded by an earlier run."""
        self._done += images
        if self._on_image is not None:
            self._on_image(self._done, self._total)


def _embed_modality(
    model: PretrainModel,
    name: str,
    inputs: Inputs,
    folder: EmbeddingFolder,
    identity: Mapping[str, Any],
    work: _Work,
) -> None:
    """Embed the images of a modality that are not on disk yet, and write them part by part."""
    sources, previous = inputs.by_modality[name], folder.progress(name)
    work.advance(previous.images)
    if previous.complete:
        return
    capacity = sum(map(len, sources))
    writer = folder.writer(name, capacity, {**identity, **_provenance(model.config, name)})
    rows, tokens = previous.rows, bool(identity["choices"]["tokens"])
    limit = rows_per_part(model.config.size.dim, _max_tokens(model, sources) if tokens else 0)
    part = EncodedWindows(model, name, min(work.batch_size, limit), tokens=tokens)
    with closing(read_ahead(sources, previous.images, work.workers)) as images:
        for num_images, image in enumerate(images, previous.images + 1):
            if image is not None:
                part.add(image)
            if len(part) == limit:
                writer.add(rows, *part.take())
                rows += limit
                # Committed after the part is on disk: a stop in between repeats the part.
                folder.commit(name, ModalityProgress(images=num_images, rows=rows))
            work.advance(1)
    if len(part):
        last = part.take()
        writer.add(rows, *last)
        rows += len(last[0])
    writer.finish(rows)
    folder.commit(name, ModalityProgress(images=capacity, rows=rows, complete=True))


def _max_tokens(model: PretrainModel, sources: Sequence[EmbeddingInput]) -> int:
    """Largest number of tokens of an image."""
    patch_px = model.config.patch_px
    shapes = {shape for source in sources for shape in source.shapes()}
    return max((rows // patch_px) * (cols // patch_px) for rows, cols in shapes)


def _provenance(config: ModelConfig, name: str) -> dict[str, Any]:
    """Describe the encoder that embedded a modality: meaning of its values, and its statistics."""
    modality = config[name]
    content = {
        field: getattr(modality, field)
        for field in ("bands", "units", "scale", "offset", "nodata", "mean", "std", "gsd_ratio")
    }
    as_json = {key: list(v) if isinstance(v, tuple) else v for key, v in content.items()}
    return {
        "architecture": config.architecture,
        "patch_px": config.patch_px,
        "base_gsd_m": config.base_gsd_m,
        "modality": name,
        **as_json,
    }


def _finish(folder: EmbeddingFolder, inputs: Inputs, identity: Mapping[str, Any]) -> None:
    """Write the table, and move the complete group to its place."""
    filled = [name for name in inputs.by_modality if folder.progress(name).rows]
    if not filled:
        shutil.rmtree(folder.building, ignore_errors=True)
        raise UsageError(
            f"nothing is observed in any of {inputs.num_images} images: all pixels are nodata. Look "
            "at the files' masks, and at --nodata."
        )
    group = zarr.open_group(folder.result, mode="r")
    attributes = {**identity, "modalities": filled}
    sources = {name: inputs.by_modality[name] for name in filled}
    write_table(folder.result / TABLE_NAME, group, sources, attributes)
    folder.finish(attributes)


def _result(out: Path, inputs: Inputs, *, already_complete: bool) -> EmbeddingResult:
    group = zarr.open_group(out, mode="r")
    names = [name for name in inputs.by_modality if name in group]
    shapes = {name: read_shape(group, name) for name in names}
    return EmbeddingResult(
        path=out,
        num_rows={name: rows for name, (rows, _) in shapes.items()},
        num_empty={
            name: sum(map(len, sources)) - shapes.get(name, (0, 0))[0]
            for name, sources in inputs.by_modality.items()
        },
        dim=next(dim for _, dim in shapes.values()),
        already_complete=already_complete,
    )


@contextmanager
def _without_raster_warnings() -> Iterator[None]:
    """Silence rasterio's warnings of missing georeferences and of masks with nodata.

    A missing georeference raises an error of its own where the GSD is needed. Set once for all
    threads: warning filters belong to the process.
    """
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield
