"""What may be told of where a file is: never the parts of an address that may be secret."""

import re
from pathlib import PurePosixPath


def bare(text: str) -> str:
    """Take queries, fragments, users and passwords from an address, or from a text with some.

    A signed URL keeps its secret after the question mark, others before the ``@``.
    """
    text = re.sub(r"(?<=://)[^/\s?#]*@", "", text)
    text = re.sub(r"\?\S+", "", text)
    return re.sub(r"(://[^\s#]*)#\S*", r"\1", text)


def name_only(location: str) -> str:
    """Give the last part of a path or URL: ``micro.zarr`` of ``/home/me/data/micro.zarr``."""
    return PurePosixPath(bare(location).replace("\\", "/").rstrip("/")).name


def is_remote(location: str) -> bool:
    """Whether it is a URL, or a path of GDAL's that leads to another machine."""
    return "://" in location.removeprefix("file://") or location.startswith("/vsi")
