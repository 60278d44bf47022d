"""Buckets that may be read but not listed, and servers without conditional puts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.derived.selection import Selection
from salibi_data.derived.subset import subset
from salibi_data.inspection.info import info
from salibi_data.inspection.plot import plot
from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.releases.pull import pull
from salibi_data.store import storage
from salibi_data.store.errors import StoreError, VerificationError
from salibi_data.store.open import StoreFiles, open_array, open_group
from salibi_data.viewer.samples import ViewedSamples
from salibi_model.data.store import SampleStore
from tests.support.data import samples
from tests.support.data.published_stores import BUCKET, assert_one_line
from tests.support.model.weights.published import another
from tests.support.services.buckets import Gate, SuffixServer
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.services.buckets import S3


@pytest.fixture
def gate(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The only way to the bucket."""
    monkeypatch.setattr(storage, "_RETRIES", {"max_retries": 1})
    with serve(Gate(endpoint=s3.endpoint)) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
        yield gate


@pytest.fixture(scope="module")
def one_store(few_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one sample: few bytes."""
    path = tmp_path_factory.mktemp("one") / "one.zarr"
    subset(few_store, path, Selection(limit=1))
    return path


@pytest.fixture
def newer(one_store: Path, tmp_path: Path) -> Path:
    return another(one_store, tmp_path / "newer.zarr", software_version="9")


class TestUnlisted:
    @pytest.fixture(params=["a release", "a store"])
    def url(self, request: pytest.FixtureRequest, gate: Gate, one_store: Path) -> str:
        """Where the store was published, or copied to."""
        name = request.node.name.replace(" ", "-")
        if request.param == "a store":
            bucket = storage.open_storage(f"s3://{BUCKET}/{name}", writing=True)
            for path in samples.tree(one_store):
                bucket.put(path, one_store / path)
        else:
            publish(one_store, f"s3://{BUCKET}/{name}")
        gate.lists = False
        return f"s3://{BUCKET}/{name}"

    def test_everything_that_reads_works_by_the_manifest(
        self, url: str, one_store: Path, tmp_path: Path
    ) -> None:
        checked = verify(url)
        assert (checked.num_samples, checked.is_listed) == (1, False)
        assert verify(one_store).is_listed
        pull(url, tmp_path / "pulled.zarr")
        assert samples.tree(tmp_path / "pulled.zarr") == samples.tree(one_store)
        assert info(url) == {**info(one_store), "store": url}
        assert np.array_equal(plot(url, num_samples=1), plot(one_store, num_samples=1))
        subset(url, tmp_path / "part.zarr", Selection(limit=1))
        assert SampleStore(tmp_path / "part.zarr").split_indices("train").size <= 1
        remote, local = SampleStore(url), SampleStore(one_store)
        for name, values in local[0].items():
            assert np.array_equal(remote[0][name], values)
        viewed = ViewedSamples(url)
        assert viewed.records(0) == ViewedSamples(one_store).records(0)

    def test_a_missing_file_is_named(self, url: str, s3: S3) -> None:
        files = StoreFiles.at(url)
        s3.delete(BUCKET, f"{url.removeprefix(f's3://{BUCKET}/')}/{files.key('sar/c/0/0/0/0')}")
        with pytest.raises(VerificationError, match=r"sar/c/0/0/0/0 is missing, or access is"):
            verify(url)
        with pytest.raises(StoreError) as caught:
            SampleStore(url).read("sar", [0])
        assert_one_line(caught, s3, "sar/c/0/0/0/0", "missing, or access is refused")

    def test_an_array_that_never_was_is_missing(self, url: str) -> None:
        with pytest.raises(StoreError, match="has no array 'never'"):
            open_array(open_group(url), "never", where=url)

    def test_nothing_there_may_mean_no_right_to_it(self, s3: S3, gate: Gate) -> None:
        gate.lists = False
        with pytest.raises(StoreError) as caught:
            StoreFiles.at(f"s3://{BUCKET}/nothing")
        assert_one_line(caught, s3, "it is missing, or access is refused", "credentials")

    def test_a_listing_without_names_is_not_believed(self, url: str, gate: Gate) -> None:
        gate.lists, gate.knows_names = True, False
        verify(url)

    @pytest.mark.parametrize("status", [403, 405])
    def test_a_refused_head_is_no_missing_file(self, url: str, gate: Gate, status: int) -> None:
        gate.head_status = status
        verify(url)

    def test_releases_are_published_there(self, gate: Gate, one_store: Path, newer: Path) -> None:
        gate.lists, url = False, f"s3://{BUCKET}/unlisted"
        first = publish(one_store, url)
        assert first.files_sent == first.files
        assert publish(one_store, url).files_sent == 0
        publish(newer, url)
        verify(url)


def test_a_web_server_is_verified_by_the_manifest(one_store: Path, tmp_path: Path) -> None:
    publish(one_store, f"file://{tmp_path}/published")
    with serve(SuffixServer(tmp_path / "published")) as web:
        assert not verify(web.url).is_listed
        (tmp_path / "published" / StoreFiles.at(web.url).key("sar/c/0/0/0/0")).unlink()
        with pytest.raises(VerificationError, match=r"sar/c/0/0/0/0 is missing"):
            verify(web.url)


class TestConditions:
    @pytest.mark.parametrize("status", [400, 405, 412, 501])
    def test_a_server_without_them_is_told_and_can_be_used(
        self,
        s3: S3,
        gate: Gate,
        one_store: Path,
        newer: Path,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
    ) -> None:
        url = f"s3://{BUCKET}/without-{status}"
        gate.condition_status = status
        for store in (one_store, newer):
            with pytest.raises(StoreError) as caught:
                publish(store, url)
            reason = "though it has not changed" if status == 412 else f"answered {status}"
            words = (reason, "AWS_CONDITIONAL_PUT=disabled", "of two publishers")
            assert_one_line(caught, s3, *words)
            with monkeypatch.context() as environment:
                environment.setenv("AWS_CONDITIONAL_PUT", "disabled")
                assert publish(store, url).files_sent == 0  # all was sent before
            assert StoreFiles.at(url).manifest() == StoreFiles.at(store).manifest()

    def test_a_weak_tag_is_no_other_release(
        self, s3: S3, gate: Gate, one_store: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = f"s3://{BUCKET}/weak"
        gate.weak_tags = True
        publish(one_store, url)
        with pytest.raises(StoreError) as caught:
            publish(newer, url)
        assert_one_line(caught, s3, "entity tag is weak", "AWS_CONDITIONAL_PUT=disabled")
        monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
        publish(newer, url)
        assert StoreFiles.at(url).manifest() == StoreFiles.at(newer).manifest()

    def test_without_them_another_release_is_still_noticed_while_files_are_sent(
        self, gate: Gate, one_store: Path, newer: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, gate.condition_status = f"s3://{BUCKET}/noticed", 501
        monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")

        def other(done: int, total: int) -> None:
            if done == total:
                publish(newer, url)

        with pytest.raises(StoreError, match="another release was published"):
            publish(one_store, url, progress=other)

    @pytest.mark.parametrize("disabled", [False, True])
    def test_the_same_release_by_another_publisher_is_no_error(
        self, gate: Gate, one_store: Path, monkeypatch: pytest.MonkeyPatch, disabled: bool
    ) -> None:
        url = f"s3://{BUCKET}/twice-{disabled}"
        if disabled:
            monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
            gate.condition_status = 501

        def other(done: int, total: int) -> None:
            if done == total:
                publish(one_store, url)

        publish(one_store, url, progress=other)
        verify(url)
