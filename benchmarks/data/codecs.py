"""Codecs for stored samples: size, and speed of encoding and decoding.

Claim: among the codecs that every reader of Zarr v3 supports, Zstandard at level 3 suits samples
best (`docs/decisions/0017-codec-and-shards.md`). Chunks of one sample, from real NAIP,
Sentinel-1 and Sentinel-2 pixels that went through a build, and from the sample catalog. All codecs
take turns; figures are medians of MB of pixels per second on one core. The limit is a copy in
memory. PNG and WebP, for which Zarr has no codec, show what a codec for images would reach.

Run: python -m benchmarks.data.codecs [--quick | --smallest] [--report FILE]
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numcodecs import Blosc, Zstd
from PIL import Image

from benchmarks._lib import side_by_side
from benchmarks._lib.machine import describe
from benchmarks._lib.pixels import stored_pixels


class Codec(NamedTuple):
    """Encoder of an image (C, H, W) to bytes, and its decoder."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], object]


def of_numcodecs(codec: Zstd | Blosc) -> Codec:
    """Wrap a codec of numcodecs, the library behind Zarr's codecs."""
    return Codec(lambda image: bytes(codec.encode(image)), codec.decode)


def of_pillow(kind: str, **options: object) -> Codec:
    """Wrap an image format of Pillow; two bands are stored as three."""

    def encode(image: np.ndarray) -> bytes:
        content = io.BytesIO()
        missing = np.zeros((3 - len(image), *image.shape[1:]), np.uint8)
        pixels = np.concatenate([image, missing]).transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels)).save(content, kind, **options)
        return content.getvalue()

    def decode(content: bytes) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1))

    return Codec(encode, decode)


CODECS = {
    "none (copy: the limit)": Codec(lambda image: image.tobytes(), bytearray),
    "zstd 1": of_numcodecs(Zstd(level=1)),
    "zstd 3": of_numcodecs(Zstd(level=3)),
    "zstd 9": of_numcodecs(Zstd(level=9)),
    "blosc zstd 3": of_numcodecs(Blosc("zstd", 3, Blosc.NOSHUFFLE)),
    "blosc zstd 3, bits shuffled": of_numcodecs(Blosc("zstd", 3, Blosc.BITSHUFFLE)),
    "blosc lz4 5": of_numcodecs(Blosc("lz4", 5, Blosc.NOSHUFFLE)),
    "blosc lz4 5, bits shuffled": of_numcodecs(Blosc("lz4", 5, Blosc.BITSHUFFLE)),
    "PNG 6": of_pillow("PNG", compress_level=6),
    "WebP lossless": of_pillow("WEBP", lossless=True, method=2),
}
"""Codecs by label. Byte shuffling is left out: values have one byte."""

STORED = "zstd 3"


def main() -> None:
    """Print a table for each kind of pixels."""
    arguments = side_by_side.parser(__doc__).parse_args()
    most = side_by_side.by_form(arguments, full=6, quick=2, smallest=1)
    rounds = side_by_side.by_form(arguments, full=3, quick=1, smallest=1)
    lines = [describe("numcodecs", "zarr", "pillow", "numpy"), ""]
    with tempfile.TemporaryDirectory() as folder:
        pixels = stored_pixels(Path(folder), most=most, real=not arguments.smallest)
    for name, images in pixels.items():
        lines += [f"## {name}: {len(images)} of {'x'.join(map(str, images[0].shape))}"]
        lines += measured([np.ascontiguousarray(image) for image in images], rounds)
    side_by_side.report(arguments.report, "Codecs", lines)


def measured(images: list[np.ndarray], rounds: int) -> list[str]:
    """Measure all codecs on one kind of pixels; give the table."""
    packed = {name: [codec.encode(i) for i in images] for name, codec in CODECS.items()}
    for name, codec in CODECS.items():
        for image, content in zip(images, packed[name], strict=True):
            pixels = np.frombuffer(codec.decode(content), np.uint8)  # type: ignore[call-overload]
            if pixels[: image.size].tobytes() != image.tobytes():
                raise AssertionError(f"{name} loses something")
    num_bytes = sum(image.nbytes for image in images)
    encoding = {n: partial(all_of, c.encode, images) for n, c in CODECS.items()}
    decoding = {n: partial(all_of, c.decode, packed[n]) for n, c in CODECS.items()}
    encoded, decoded = (
        side_by_side.medians(side_by_side.paired(ways, rounds)) for ways in (encoding, decoding)
    )
    rows = []
    for name, pieces in packed.items():
        share = sum(map(len, pieces)) / num_bytes
        rows.append(
            [
                name,
                f"{share:.3f}",
                f"{num_bytes / 1e6 / encoded[name]:,.0f}",
                f"{num_bytes / 1e6 / decoded[name]:,.0f}",
                f"{decoded[STORED] / decoded[name]:.2f}",
            ]
        )
    head = ["codec", "share of bytes", "encode MB/s", "decode MB/s", f"decoding, {STORED} = 1"]
    return side_by_side.table(head, rows)


def all_of(way: Callable[..., object], values: list[object]) -> None:
    """Call ``way`` with each value."""
    for value in values:
        way(value)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # warnings of builds that lack a sensor
    main()
