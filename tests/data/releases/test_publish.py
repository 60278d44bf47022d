"""Publishing to a bucket that checks signatures, and to a folder: readers see whole releases only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.store.errors import StoreError, UsageError, VerificationError
from salibi_data.store.open import StoreFiles
from salibi_data.store.schema import Release
from salibi_data.store.storage import open_storage
from tests.support.data import samples
from tests.support.data.published_stores import BUCKET, assert_one_line, objects
from tests.support.model.weights.published import another, damaged

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.services.buckets import S3


def test_what_was_published_verifies_and_is_byte_for_byte_the_store(
    url: str, some_store: Path
) -> None:
    done = publish(some_store, url)
    assert verify(url).num_samples == done.release.samples == verify(some_store).num_samples
    files = StoreFiles.at(url)
    assert {name: files.sha256(name, size) for name, size in files.sizes().items()} == samples.tree(
        some_store
    )
    num_cards = len(done.release.cards)
    assert done.files_sent == done.files == len(samples.tree(some_store)) + num_cards
    assert done.bytes_sent > sum(files.sizes().values()) == done.release.num_bytes


def test_publishing_the_same_again_sends_nothing(url: str, some_store: Path) -> None:
    first = publish(some_store, url)
    before = objects(url)
    again = publish(some_store, url)
    assert (again.files_sent, again.before, again.release) == (0, first.release, first.release)
    assert objects(url) == before


def test_a_dry_run_tells_what_there_is_to_do_and_writes_nothing(
    url: str, some_store: Path, tmp_path: Path
) -> None:
    dry = publish(some_store, url, dry_run=True)
    assert not (tmp_path / "published").exists()
    if url.startswith("s3:"):
        assert not objects(url)
    done = publish(some_store, url)
    assert (dry.files_sent, dry.bytes_sent) == (done.files_sent, done.bytes_sent)
    assert dry.release == done.release


def test_a_newer_release_leaves_the_one_before_as_it_was(
    url: str, some_store: Path, newer: Path
) -> None:
    first = publish(some_store, url)
    reader = StoreFiles.at(url)
    before = objects(url)
    second = publish(newer, url)
    assert second.before == first.release
    assert StoreFiles.at(url).release == second.release
    after = objects(url)
    assert {name: after[name] for name in before if name != "latest.json"} == {
        name: size for name, size in before.items() if name != "latest.json"
    }
    # Who opened the dataset before goes on with what was opened.
    assert reader.manifest() == StoreFiles.at(some_store).manifest()
    back = publish(some_store, url)
    assert (back.files_sent, StoreFiles.at(url).release) == (0, first.release)


def test_of_two_releases_at_once_none_is_lost_without_a_word(
    s3: S3, some_store: Path, newer: Path
) -> None:
    """The other one is published while this one's last files are on their way."""
    url = f"s3://{BUCKET}/both"
    publish(some_store, url)
    third = another(some_store, newer.with_name("third.zarr"), software_version="10")

    def other(done: int, total: int) -> None:
        if done == total:
            publish(third, url)

    with pytest.raises(StoreError, match="another release was published") as caught:
        publish(newer, url, progress=other)
    assert_one_line(caught, s3, "run the same command again")
    assert StoreFiles.at(url).manifest() == StoreFiles.at(third).manifest()
    publish(newer, url)
    assert StoreFiles.at(url).manifest() == StoreFiles.at(newer).manifest()
    verify(url)


def test_what_lies_at_the_address_is_not_touched(
    url: str, some_store: Path, newer: Path, s3: S3
) -> None:
    open_storage(url, writing=True).put("holiday.jpg", b"sea")
    with pytest.raises(StoreError) as caught:
        publish(some_store, url)
    assert_one_line(caught, s3, "something else", "holiday.jpg", f"{url}/micro")
    assert objects(url) == {"holiday.jpg": 3}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"variant": "full"}, ["the dataset 'micro'", "'full'", "--name micro"]),
        ({"catalog": "earth-search"}, ["'sample-test'", "'earth-search'"]),
    ],
)
def test_another_dataset_is_not_published_over_one(
    url: str, some_store: Path, tmp_path: Path, s3: S3, other: dict[str, str], words: list[str]
) -> None:
    publish(some_store, url)
    before = objects(url)
    stranger = another(some_store, tmp_path / "other.zarr", **other)
    with pytest.raises(StoreError) as caught:
        publish(stranger, url)
    assert_one_line(caught, s3, *words)
    assert objects(url) == before
    verify(url)


def test_a_damaged_store_is_not_published(url: str, some_store: Path, tmp_path: Path) -> None:
    publish(some_store, url)
    good = another(some_store, tmp_path / "good.zarr", software_version="11")
    bad = damaged(good, tmp_path / "bad.zarr", "lores/c/0/0/0/0")
    with pytest.raises(StoreError, match=r"lores/c/0/0/0/0 is not as its store's manifest says"):
        publish(bad, url)
    assert StoreFiles.at(url).manifest() == StoreFiles.at(some_store).manifest()


def test_damage_in_a_bucket_is_found_and_mended(s3: S3, some_store: Path) -> None:
    url = f"s3://{BUCKET}/mended"
    done = publish(some_store, url)
    name = f"{done.release.store}/sar/c/0/0/0/0"
    size = objects(url)[name]
    open_storage(url).put(name, bytes(size))
    with pytest.raises(VerificationError, match=r"sar/c/0/0/0/0 differs.* Publish it again"):
        verify(url)
    assert publish(some_store, url).files_sent == 1
    verify(url)


def test_a_damaged_pointer_is_told(url: str, some_store: Path) -> None:
    publish(some_store, url)
    open_storage(url).put("latest.json", b"{")
    with pytest.raises(StoreError, match=r"damaged latest\.json"):
        verify(url)


def test_credentials_that_are_wrong_or_missing(
    s3: S3, some_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError) as caught:
        publish(some_store, f"s3://{BUCKET}/refused")
    assert_one_line(caught, s3, "access is refused", "credentials in the environment")
    s3.environment(monkeypatch)
    assert not objects(f"s3://{BUCKET}/refused")


def test_a_bucket_that_is_not_there(s3: S3, some_store: Path) -> None:
    with pytest.raises(StoreError) as caught:
        publish(some_store, "s3://nowhere/micro")
    assert_one_line(caught, s3, "its bucket does not exist")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://host/micro", "nothing is written to https://"),
        ("s3://key:secret@bucket/micro", "credentials in the environment"),
        ("s3://bucket/micro?X-Amz-Signature=secret", "credentials in the environment"),
    ],
)
def test_addresses_that_are_not_written_to(some_store: Path, url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        publish(some_store, url)
    assert "secret" not in str(caught.value)


def test_what_is_no_store_is_not_published(tmp_path: Path, some_store: Path) -> None:
    with pytest.raises(StoreError, match="is not a Salibi store"):
        publish(tmp_path, f"file://{tmp_path}/published")
    publish(some_store, f"file://{tmp_path}/published")
    with pytest.raises(UsageError, match="is published already"):
        publish(tmp_path / "published", f"file://{tmp_path}/again")
    assert not (tmp_path / "again").exists()


def test_a_release_reads_as_it_was_written() -> None:
    release = Release(
        dataset="micro",
        catalog="sample",
        manifest_sha256="0" * 64,
        samples=1,
        num_bytes=2,
        cards={"README.md": "1" * 64},
    )
    content = json.dumps(release.to_dict())
    assert Release.from_json(content, where="x") == release


def test_the_command_reports_what_it_did(some_store: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/published"
    dry = samples.run("publish", str(some_store), url, "--dry-run")
    assert "would be sent" in dry.stdout
    done = samples.run("publish", str(some_store), url, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["files_sent"] == figures["files"]
    assert figures["release"]["dataset"] == "micro"
    again = samples.run("publish", str(some_store), url)
    assert "nothing was sent" in again.stdout
    checked = samples.run("verify", url)
    assert checked.returncode == 0, checked.stderr
    shown = samples.run("info", url, "--json")
    assert json.loads(shown.stdout)["samples"] == figures["release"]["samples"]
