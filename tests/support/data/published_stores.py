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
    said = str(caught.value)
    assert "\n" not in said
    assert s3.key not in said
    assert s3.secret not in said
    assert "Signature" not in said
    for word in words:
        assert word in said
