"""Published stores, their objects and their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from salibi_data.store.storage import list_sizes, open_storage

if TYPE_CHECKING:
    import pytest

    from tests.support.services.buckets import S3


BUCKET = "datasets"


def objects(url: str) -> dict[str, int]:
    return list_sizes(open_storage(url, writing=True))


def assert_one_line(caught: pytest.ExceptionInfo[Exception], s3: S3, *words: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    assert s3.key not in message
    assert s3.secret not in message
    assert "Signature" not in message
    for word in words:
        assert word in message
