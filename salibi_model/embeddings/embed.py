"""Embeddings of stores, rasters and images, to Zarr and GeoParquet: read, encode, write.

Threads read ahead, in order, while the model encodes. ``docs/embeddings.md`` describes what is
written.
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
from salibi_model.embeddings.encode import Part, read_ahead
from salibi_model.embeddings.inputs import Source
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
"""Version of the layout that is written."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingResult:
    """What was written."""

    path: Path
    """The Zarr group; the table is in it."""
    num_rows: dict[str, int]
    """Images embedded, by modality."""
    num_empty: dict[str, int]
    """Images left out because nothing was observed in them."""
    dim: int
    already_complete: bool
    """Whether nothing was left to do."""

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
    """Embed all images of ``inputs``; run again after a stop, it goes on where it was.

    A resumed run gives the bytes of one that was never stopped, with the same batch size and device.

    Args:
        checkpoint: a run's or model's folder.
        inputs: Salibi stores (folder, or URL that ends in ``.zarr``), and rasters of any size (path or
            URL that GDAL reads).
        out: the group to write, a new folder; it appears when everything is in it.
        modalities: names of the model's modalities; empty: all that a store has, or the only one
            that a raster's bands fit.
        split: samples of a store to take: ``train``, ``validation``, ``test``; ``None``: all.
        window_px: edge of a raster's windows; ``None``: that of the modality in training.
        stride_px: pixels from one window to the next; ``None``: their edge, so that they touch.
        bands: names of a raster's bands, in its order; empty: as the file says.
        units: units of a raster's values, see
            :func:`salibi_model.embeddings.quantise.choose_units`.
        scale: physical value = offset + scale * the file's; ``None``: the file's own, else 1.
        offset: see ``scale``.
        nodata: a value that means "not observed", besides what the file masks.
        gsd_m: metres per pixel of a raster; ``None``: from its georeference.
        gsd_ratio: in its place, for a model that does not know the metres it was trained at.
        any_gsd: take also a GSD far from those of the training.
        tokens: keep the tokens of each image besides its embedding.
        batch_size: images that the model takes at a time.
        device: where to encode.
        workers: threads that read.
        on_image: called with (done, total) images of all modalities.

    Raises:
        UsageError: an input is not what the model takes, nothing is observed in any, or ``out`` holds
            something else.
        StoreError: an input is damaged; what was embedded before is kept.
        CheckpointError: there is no model, or its embeddings are not finite.

    Example:
        >>> embed("runs/tiny", ["scene.tif"], out="embeddings", modalities=("lores",), gsd_m=10.0)
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
        found = Inputs(inputs, model.config, options)
        origin = {
            "format_version": FORMAT_VERSION,
            "software_version": __version__,
            "checkpoint_sha256": file_sha256(model_folder(checkpoint) / WEIGHTS_NAME),
            "inputs": found.facts,
            "choices": options.to_dict(),
        }
        if not Path(out).name:
            raise UsageError(f"{str(out)!r} is no name for embeddings; give another --out.")
        folder = EmbeddingFolder(Path(out), origin)
        complete = folder.is_complete
        if not complete:
            pace = _Pace(batch_size, workers, found.num_images, on_image)
            folder.building.mkdir(parents=True, exist_ok=True)
            busy = UsageError(
                f"another process is embedding in {folder.building}; wait for it or stop it, or give "
                "another --out."
            )
            with hold_lock(folder.building, busy=busy):
                for name in found.sources:
                    _embed_modality(model, name, found, folder, origin, pace)
                _finish(folder, found, origin)
    return _result(folder.out, found, already_complete=complete)


class _Pace:
    """How work is divided, and telling how far it is."""

    def __init__(
        self, batch_size: int, workers: int, total: int, on_image: Progress | None
    ) -> None:
        self.batch_size, self.workers = batch_size, workers
        self._total, self._on_image = total, on_image
        self._done = 0

    def advance(self, images: int) -> None:
        """Note that so many more images are read and encoded, or found empty or done before."""
        self._done += images
        if self._on_image is not None:
            self._on_image(self._done, self._total)


def _embed_modality(
    model: PretrainModel,
    name: str,
    inputs: Inputs,
    folder: EmbeddingFolder,
    origin: Mapping[str, Any],
    pace: _Pace,
) -> None:
    """Embed the images of a modality that are not on the disk yet, and write part after part."""
    sources, before = inputs.sources[name], folder.progress(name)
    pace.advance(before.images)
    if before.complete:
        return
    capacity = sum(map(len, sources))
    writer = folder.writer(name, capacity, {**origin, **_provenance(model.config, name)})
    rows, tokens = before.rows, bool(origin["choices"]["tokens"])
    limit = rows_per_part(model.config.size.dim, _most_tokens(model, sources) if tokens else 0)
    part = Part(model, name, min(pace.batch_size, limit), tokens=tokens)
    with closing(read_ahead(sources, before.images, pace.workers)) as views:
        for num_images, view in enumerate(views, before.images + 1):
            if view is not None:
                part.add(view)
            if len(part) == limit:
                writer.add(rows, *part.take())
                rows += limit
                folder.commit(name, ModalityProgress(images=num_images, rows=rows))
            pace.advance(1)
    if len(part):
        last = part.take()
        writer.add(rows, *last)
        rows += len(last[0])
    writer.finish(rows)
    folder.commit(name, ModalityProgress(images=capacity, rows=rows, complete=True))


def _most_tokens(model: PretrainModel, sources: Sequence[Source]) -> int:
    patch_px = model.config.patch_px
    shapes = {shape for source in sources for shape in source.shapes()}
    return max((rows // patch_px) * (cols // patch_px) for rows, cols in shapes)


def _provenance(config: ModelConfig, name: str) -> dict[str, Any]:
    """What a model made the rows of a modality with: what its values meant, and its statistics."""
    modality = config[name]
    content = {
        field: getattr(modality, field)
        for field in ("bands", "units", "scale", "offset", "nodata", "mean", "std", "gsd_ratio")
    }
    listed = {key: list(v) if isinstance(v, tuple) else v for key, v in content.items()}
    return {
        "architecture": config.architecture,
        "patch_px": config.patch_px,
        "base_gsd_m": config.base_gsd_m,
        "modality": name,
        **listed,
    }


def _finish(folder: EmbeddingFolder, inputs: Inputs, origin: Mapping[str, Any]) -> None:
    """Write the table, and let the folder appear."""
    filled = [name for name in inputs.sources if folder.progress(name).rows]
    if not filled:
        shutil.rmtree(folder.building, ignore_errors=True)
        raise UsageError(
            f"nothing is observed in any of {inputs.num_images} images: all pixels are nodata. Look "
            "at the files' masks, and at --nodata."
        )
    group = zarr.open_group(folder.result, mode="r")
    attributes = {**origin, "modalities": filled}
    sources = {name: inputs.sources[name] for name in filled}
    write_table(folder.result / TABLE_NAME, group, sources, attributes)
    folder.finish(attributes)


def _result(out: Path, inputs: Inputs, *, already_complete: bool) -> EmbeddingResult:
    group = zarr.open_group(out, mode="r")
    names = [name for name in inputs.sources if name in group]
    shapes = {name: read_shape(group, name) for name in names}
    return EmbeddingResult(
        path=out,
        num_rows={name: rows for name, (rows, _) in shapes.items()},
        num_empty={
            name: sum(map(len, sources)) - shapes.get(name, (0, 0))[0]
            for name, sources in inputs.sources.items()
        },
        dim=next(dim for _, dim in shapes.values()),
        already_complete=already_complete,
    )


@contextmanager
def _without_raster_warnings() -> Iterator[None]:
    """Leave out rasterio's warnings of images without place, whose GSD is asked for, and of masks.

    Once for all threads: filters belong to the process.
    """
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield
