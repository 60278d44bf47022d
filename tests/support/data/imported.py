"""Imported archives and what Pillow decodes of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import zarr
from PIL import Image
from typer.testing import CliRunner

from salibi_data.store.schema import StoreAttributes
from tests.support.data.released_archives import (
    LEFT,
    TOP,
    ZOOM,
    encoded,
    flat,
    release,
)

if TYPE_CHECKING:
    import typer


def attributes_of(store: Path) -> StoreAttributes:
    return StoreAttributes.from_dict(dict(zarr.open_group(store).attrs), where="")


def damaged(kind: str) -> bytes:
    """A tile that is not what it should be."""
    good = flat(7, 7, 7)
    photo = release([(LEFT, TOP)]).lores[ZOOM, LEFT, TOP]
    flipped = bytearray(photo)
    flipped[len(photo) // 2] ^= 1
    return {
        "text": b"<html>403</html>",
        "cut": photo[: len(photo) // 2],
        "flipped": bytes(flipped),
        "small": encoded(Image.new("RGBA", (128, 128))),
        "huge": encoded(Image.new("1", (20_000, 20_000))),
        "deep": encoded(Image.new("I;16", (256, 256))),
        "gif": encoded(Image.open(io.BytesIO(good)).convert("RGB"), "GIF"),
    }[kind]


def output_of(application: typer.Typer, *arguments: str) -> str:
    """Run a command that succeeds; give its output."""
    done = CliRunner().invoke(application, list(arguments))
    assert done.exit_code == 0, repr(done.exception)
    return done.stdout
