"""Read where S3 is and how to sign from the environment, by the AWS tools' names and by GDAL's.

=============================================  ==================================  =================
AWS tools, obstore                             GDAL                                meaning
=============================================  ==================================  =================
``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``  ``AWS_S3_ENDPOINT``, ``AWS_HTTPS``  another server
``AWS_ALLOW_HTTP``                             ``AWS_HTTPS=NO``                    plain http is meant
``AWS_VIRTUAL_HOSTED_STYLE_REQUEST``           ``AWS_VIRTUAL_HOSTING``             bucket in the host
``AWS_REGION``, ``AWS_DEFAULT_REGION``         the same                            region
``AWS_SKIP_SIGNATURE``                         ``AWS_NO_SIGN_REQUEST``             no credentials
=============================================  ==================================  =================

Files that are read as sources obey both columns, GDAL's first; stores obey the first one, and
``AWS_NO_SIGN_REQUEST``.

Sources: https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html,
https://gdal.org/en/stable/user/virtual_file_systems.html#vsis3,
https://docs.rs/object_store/latest/object_store/aws/enum.AmazonS3ConfigKey.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from salibi_data.store.errors import UsageError

_TRUE: Final = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"0", "false", "no", "off", "f", "n"})
_AMAZON: Final = "s3.amazonaws.com"
_CREDENTIALS: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    }
)
"""Variables that say where credentials are."""


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """Where the S3 of source files is, and whether requests are signed."""

    endpoint: str | None = None
    """URL of the server, without a bucket; None for Amazon's."""
    region: str | None = None
    """Region to sign for; None where nothing names one."""
    has_virtual_hosts: bool | None = None
    """Whether the bucket is part of the host's name; None: as the client sees fit."""
    skips_signature: bool | None = None
    """Whether requests go unsigned; None where the environment does not say."""

    @classmethod
    def from_environment(cls) -> S3Settings:
        """Read the variables of the module's table.

        Raises:
            UsageError: the endpoint is no http(s) URL, or plain http without permission.
        """
        own = os.environ.get("AWS_S3_ENDPOINT")
        name = next(
            (n for n in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)), ""
        )
        endpoint = _gdal_endpoint(own) if own else _endpoint_url(name) if name else None
        hosting = ["AWS_VIRTUAL_HOSTING", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"]
        hosted = [flag for variable in hosting if (flag := _flag(variable)) is not None]
        skips = [
            flag
            for variable in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
            if (flag := _flag(variable)) is not None
        ]
        return cls(
            endpoint=endpoint,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            # Other servers seldom have a name for every bucket; GDAL's default is meant for Amazon.
            has_virtual_hosts=hosted[0] if hosted else False if endpoint and not own else None,
            skips_signature=any(skips) if skips else None,
        )

    def is_signed(self, *, requester_pays: bool = False) -> bool:
        """Return whether requests are signed: if it is asked for, or credentials are named."""
        if self.skips_signature is not None:
            return not self.skips_signature
        return requester_pays or bool(_CREDENTIALS & set(os.environ))

    def region_for(self, catalog_region: str | None) -> str | None:
        """Return the region to sign for, given that of the catalog for Amazon's own server."""
        if self.endpoint is not None and self.region is not None:
            return self.region
        return catalog_region or self.region

    def gdal_options(
        self, bucket: str, *, requester_pays: bool = False, region: str | None = None
    ) -> dict[str, str]:
        """Return GDAL's configuration for files of a bucket (``/vsis3/``).

        Args:
            bucket: name of the bucket.
            requester_pays: whether the reader may be charged.
            region: region of the bucket on Amazon's server, where the client has to name it.
        """
        options = {}
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            # obstore takes a virtual host with the bucket, GDAL puts the bucket in front itself.
            host = (
                parts.netloc.removeprefix(f"{bucket}.") if self.has_virtual_hosts else parts.netloc
            )
            options["AWS_S3_ENDPOINT"] = f"{host}{parts.path.rstrip('/')}"
            options["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
        if self.has_virtual_hosts is not None:
            options["AWS_VIRTUAL_HOSTING"] = "TRUE" if self.has_virtual_hosts else "FALSE"
        if (signed_region := self.region_for(region)) is not None:
            options["AWS_REGION"] = signed_region
        is_signed = self.is_signed(requester_pays=requester_pays)
        # Stated in either case: rasterio keeps what an earlier environment of the process said.
        options["AWS_NO_SIGN_REQUEST"] = "NO" if is_signed else "YES"
        if is_signed and requester_pays:
            options["AWS_REQUEST_PAYER"] = "requester"
        return options


def skips_signature() -> bool:
    """Return whether the environment asks for requests without a signature, by either name."""
    return bool(_flag("AWS_SKIP_SIGNATURE") or _flag("AWS_NO_SIGN_REQUEST"))


def _flag(variable: str) -> bool | None:
    """Return the truth of a variable; None where it is not set, or neither true nor false."""
    text = os.environ.get(variable, "").strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _gdal_endpoint(text: str) -> str | None:
    if text.removeprefix("https://").rstrip("/") == _AMAZON:
        return None
    if "://" in text:
        return text
    return f"{'http' if _flag('AWS_HTTPS') is False else 'https'}://{text}"


def _endpoint_url(variable: str) -> str:
    url = os.environ[variable]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
        raise UsageError(
            f"{variable} is not the URL of a server; give http(s)://HOST:PORT, and credentials in "
            "variables of their own."
        )
    if parts.scheme == "http" and not _flag("AWS_ALLOW_HTTP"):
        raise UsageError(f"{variable} is plain http; set AWS_ALLOW_HTTP=true if that is meant.")
    return url
