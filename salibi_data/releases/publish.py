"""Publishes a store: data first, the pointer last, so that readers only see whole releases.

A release lies in a folder named by the checksum of its manifest, so that only a publisher of the same
store writes there. ``latest.json`` at the dataset's address names the newest release. If publishing is
killed, readers have the release before, and the next run sends what is missing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from salibi_data.releases.options import TransferOptions
from salibi_data.releases.pointer import Latest, others_at
from salibi_data.releases.transfers import Upload, missing, uploads_of
from salibi_data.store.errors import UsageError
from salibi_data.store.open import GROUP_NAME, StoreFiles
from salibi_data.store.schema import MANIFEST_NAME, Release
from salibi_data.store.storage import (
    is_url,
    local_path,
    open_storage,
    parallel_map,
    translate_errors,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from salibi_data.store.progress import Progress

_LAST: Final = (GROUP_NAME, MANIFEST_NAME)
"""Files sent last: without them a release that is not complete cannot be opened."""

_CONTINUE: Final = "What was sent is kept; run the same command again to go on."


@dataclass(frozen=True, kw_only=True)
class Published:
    """Result of publishing; of a dry run, what publishing would do."""

    url: str
    release: Release
    before: Release | None
    """Release that was the newest before; None for the first one."""
    files: int
    files_sent: int
    """Number of files that were missing at the address, or differed."""
    bytes_sent: int


def publish(
    store: str | Path,
    url: str,
    *,
    name: str | None = None,
    figure: bytes | None = None,
    dry_run: bool = False,
    workers: int = TransferOptions.workers,
    progress: Progress | None = None,
) -> Published:
    """Publish a store as the newest release of a dataset, or continue a publication that was stopped.

    Args:
        store: folder of a finished store.
        url: address of the dataset (s3://, gs://, az://, file://, or a path): nothing is there
            yet, or earlier releases of the same dataset.
        name: name of the dataset; by default the store's variant.
        figure: JPEG of some samples, for the dataset card.
        dry_run: whether to report what would be sent, and write nothing.
        workers: number of files sent in parallel.
        progress: called with (files done, files in all).

    Raises:
        StoreError: the store is not finished, or not as its manifest says; something else is at
            ``url``; it cannot be reached or written to; another release was published meanwhile.
        UsageError: a URL of a kind that is not written to, or with a password in it.

    Example:
        >>> published = salibi_data.publish(store_path, str(folder / "published"))
        >>> salibi_data.info(folder / "published")["variant"]
        'micro'
    """
    from salibi_data.releases.cards import cards_of

    files = _local(store)
    release = _release(files, name)
    target = _target(url, dry_run=dry_run)
    with translate_errors(url, "published to"):
        latest = Latest.read(target, url)
        latest.check(release.dataset, release.catalog, others_at(target))
    release, cards = _with_cards(
        release, cards_of(files, release, figure=figure), newest=latest.release
    )
    uploads = [
        *uploads_of(Path(store), files.manifest(), release.store),
        *(Upload.of_bytes(card, f"{release.folder}/{file}") for file, card in cards.items()),
        Upload.of_bytes(files.read(MANIFEST_NAME), f"{release.store}/{MANIFEST_NAME}"),
    ]
    with translate_errors(url, "published to", advice=_CONTINUE):
        to_send = missing(target, release.folder, uploads, workers=workers)
        if not dry_run:
            _send(to_send, len(uploads), target, release, workers, progress)
            latest.replace_by(release, target)
    return Published(
        url=url,
        release=release,
        before=latest.release,
        files=len(uploads),
        files_sent=len(to_send),
        bytes_sent=sum(upload.entry.bytes for upload in to_send),
    )


def _local(store: str | Path) -> StoreFiles:
    files = None if is_url(store) else StoreFiles.at(store)
    if files is None or files.release is not None:
        raise UsageError(f"{store} is published already; give the folder of a store.")
    return files


def _release(files: StoreFiles, name: str | None) -> Release:
    group, attributes = files.open()
    manifest, content = files.manifest(), files.read(MANIFEST_NAME)
    return Release(
        dataset=name or attributes.variant,
        catalog=attributes.catalog,
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        samples=int(group["tile"].shape[0]),
        num_bytes=len(content) + sum(entry.bytes for entry in manifest.values()),
        cards={},
    )


def _with_cards(
    release: Release, cards: dict[str, bytes], *, newest: Release | None
) -> tuple[Release, dict[str, bytes]]:
    """Give the release with its cards' checksums, and the cards to publish.

    A release that readers have keeps the cards it came with, though another version of this
    software would write others.
    """
    checksums = {name: hashlib.sha256(card).hexdigest() for name, card in cards.items()}
    if newest is None or newest.manifest_sha256 != release.manifest_sha256:
        return replace(release, cards=checksums), cards
    published_cards = {
        name: card for name, card in cards.items() if newest.cards.get(name) == checksums[name]
    }
    return newest, published_cards


def _target(url: str, *, dry_run: bool) -> ObjectStore:
    from obstore.store import MemoryStore

    on_disk = not is_url(url) or url.startswith("file:")
    if dry_run and on_disk and not local_path(url).is_dir():
        return MemoryStore()  # nothing is there yet, and no folder is made
    return open_storage(url, writing=True)


def _send(
    uploads: list[Upload],
    total: int,
    target: ObjectStore,
    release: Release,
    workers: int,
    progress: Progress | None,
) -> None:
    last = {f"{release.store}/{name}" for name in _LAST}
    stages = (
        [upload for upload in uploads if upload.key not in last],
        [upload for upload in uploads if upload.key in last],
    )
    done = total - len(uploads)
    for stage in stages:
        for _ in parallel_map(lambda upload: upload.send(target), stage, workers=workers):
            done += 1
            if progress is not None:
                progress(done, total)
