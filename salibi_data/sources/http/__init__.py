"""Read byte ranges of files over http(s), with retries, length checks, tokens and deadlines.

GDAL's own client does not retry a truncated body, a stall or a 403, and ignores ``Retry-After``, so
:mod:`salibi_data.sources.gdal` makes GDAL read through this package. ``HTTPS_PROXY``, ``NO_PROXY`` and
``REQUESTS_CA_BUNDLE`` have effect, as in requests.
"""

from salibi_data.sources.http.answers import classify_status
from salibi_data.sources.http.remote_file import HEADER_BYTES, RemoteFile, read_bytes
from salibi_data.sources.http.traffic import Counters, counters
from salibi_data.sources.rate_limits import HttpSettings, deadline

__all__ = [
    "HEADER_BYTES",
    "Counters",
    "HttpSettings",
    "RemoteFile",
    "classify_status",
    "counters",
    "deadline",
    "read_bytes",
]
