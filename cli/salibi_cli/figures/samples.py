"""The figure of a store: some of its samples, all modalities side by side."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from salibi_cli.figures.panels import Panel, save_panels
from salibi_data.inspection.info import figure_rows
from salibi_data.store.errors import UsageError
from salibi_model.data.render_rgb import as_rgb


def draw(store: str | Path, output: Path, *, num_samples: int, edge: int | None = None) -> int:
    """Draw samples spread evenly over a store; give back their number.

    Args:
        store: path of the store.
        output: file to write.
        num_samples: samples, a row each.
        edge: of a panel in pixels; default the finest modality's.

    Raises:
        UsageError: the edge and the images' sizes do not divide.
    """
    attributes, samples = figure_rows(store, num_samples=num_samples)
    modalities = attributes.modalities
    rows = [
        [
            Panel(
                title=f"{name} ({modalities[name].sensor})", image=as_rgb(image, modalities[name])
            )
            for name, image in images.items()
        ]
        for images in samples.values()
    ]
    edge_px = edge or max(modality.size_px for modality in modalities.values())
    if any(edge_px % m.size_px and m.size_px % edge_px for m in modalities.values()):
        sizes = ", ".join(f"{m.size_px}" for m in modalities.values())
        raise UsageError(
            f"--edge {edge_px} and images of {sizes} px do not divide; try 256 or 512."
        )
    save_panels(rows, output, row_labels=list(samples), edge_px=edge_px)
    return len(rows)


def as_jpeg(store: str | Path, *, num_samples: int, edge: int) -> bytes:
    """The same figure as the bytes of a JPEG."""
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "samples.jpg"
        draw(store, picture, num_samples=num_samples, edge=edge)
        return picture.read_bytes()
