"""Pulls a published store: fetches every file, checks its checksum, and moves the store to its place.

Files are gathered in the workspace beside the store. A file appears there whole, after its checksum
was checked, so that a pull that was stopped fetches only what is missing.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salibi_data.assembly.workspace import BuildWorkspace
from salibi_data.assembly.writer import replace_store
from salibi_data.releases.options import TransferOptions
from salibi_data.store.errors import StoreError
from salibi_data.store.filesystem import remove_partials, write_atomically
from salibi_data.store.manifest import ManifestEntry, parse_manifest
from salibi_data.store.open import StoreFiles
from salibi_data.store.schema import MANIFEST_NAME
from salibi_data.store.storage import parallel_map, read_blocks, translate_errors

if TYPE_CHECKING:
    from salibi_data.store.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """Result of a pull."""

    store: Path
    manifest_sha256: str
    num_samples: int
    files: int
    files_fetched: int
    """Number of files that were missing."""
    bytes_fetched: int


def pull(
    url: str | Path,
    store: str | Path,
    *,
    workers: int = TransferOptions.workers,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch the newest release of a dataset, or a store; continue a pull that was stopped.

    Args:
        url: address of a published dataset (s3://, gs://, az://, http(s)://, file://), or of a
            store itself.
        store: path for the store; nothing may be there yet, or the same store.
        workers: number of files fetched in parallel.
        progress: called with (files done, files in all).

    Raises:
        StoreError: nothing is at ``url``, it cannot be reached, is of a newer schema, or differs from its checksums;
            something else is at ``store``, or the disk has no room for it.
        UsageError: a URL of a kind that is not read, or with a password in it.

    Example:
        >>> _ = salibi_data.publish(store_path, str(folder / "dataset"))
        >>> _ = salibi_data.pull(folder / "dataset", folder / "pulled.zarr")
        >>> salibi_data.verify(folder / "pulled.zarr").num_samples == salibi_data.verify(store_path).num_samples
        True
    """
    files = StoreFiles.at(url)
    group, _ = files.open()
    content = files.manifest_content()
    manifest = parse_manifest(content, where=f"{MANIFEST_NAME} of {files.where}")
    path, sha256 = Path(store), hashlib.sha256(content).hexdigest()
    fetched: list[str] = []
    if not _is_pulled(path, content, manifest):
        workspace = BuildWorkspace.of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_no_build(workspace)
        with workspace.lock():
            # Named by the release, so that a repeated pull never mixes files of two releases.
            folder = workspace.folder / f"pull-{sha256[:16]}"
            fetched = _fetch(files, manifest, folder, workers, progress)
            with write_atomically(folder / MANIFEST_NAME) as partial:
                partial.write_bytes(content)
            replace_store(folder, path)
            workspace.remove(path)
    return Pulled(
        store=path,
        manifest_sha256=sha256,
        num_samples=int(group["tile"].shape[0]),
        files=len(manifest),
        files_fetched=len(fetched),
        bytes_fetched=sum(manifest[name].bytes for name in fetched),
    )


def _is_pulled(store: Path, content: bytes, manifest: dict[str, ManifestEntry]) -> bool:
    """Whether the same store is at a path.

    Raises:
        StoreError: something else is at the path, or the store is damaged.
    """
    if not store.exists() or (store.is_dir() and not any(store.iterdir())):
        return False
    manifest_path = store / MANIFEST_NAME
    if not manifest_path.is_file() or manifest_path.read_bytes() != content:
        raise StoreError(
            f"{store} exists and holds something else; nothing was changed. Choose another path, "
            "or remove it."
        )
    for name, entry in manifest.items():
        if not _has(store, name, entry):
            raise StoreError(
                f"{store} is the same store, but its file {name} is missing or cut short; remove "
                "the store and pull it again."
            )
    return True


def _has(folder: Path, name: str, entry: ManifestEntry) -> bool:
    path = folder / name
    # Size is enough: a file gets its name only after its checksum was right.
    return path.is_file() and path.stat().st_size == entry.bytes


def _check_no_build(workspace: BuildWorkspace) -> None:
    if workspace.plan.exists():
        raise StoreError(
            f"{workspace.folder} holds an unfinished build; nothing was changed. Finish it by "
            "running it again, choose another path, or remove the folder."
        )


def _fetch(
    files: StoreFiles,
    manifest: dict[str, ManifestEntry],
    folder: Path,
    workers: int,
    progress: Progress | None,
) -> list[str]:
    """Fetch the files that a folder lacks, and return their names."""
    remove_partials(folder)
    wanted = [name for name, entry in manifest.items() if not _has(folder, name, entry)]
    _check_room(folder, sum(manifest[name].bytes for name in wanted))
    done = len(manifest) - len(wanted)

    def fetch(name: str) -> None:
        fetch_file(files, name, manifest[name], folder / name)

    for _ in parallel_map(fetch, wanted, workers=workers):
        done += 1
        if progress is not None:
            progress(done, len(manifest))
    return wanted


def _check_room(folder: Path, num_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StoreError(
            f"{num_bytes / 1e9:.1f} GB are to be pulled and {free / 1e9:.1f} GB are free at "
            f"{folder.parent}; make room, or choose another path."
        )


def fetch_file(files: StoreFiles, name: str, entry: ManifestEntry, path: Path) -> None:
    """Fetch one file of a store; it appears whole and checked, or not at all.

    Raises:
        StoreError: it cannot be read, or differs from its checksum.
    """
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        translate_errors(
            f"{name} of {files.where}", "read", advice="Run the same command again to go on."
        ),
        write_atomically(path) as partial,
        partial.open("wb") as file,
    ):
        for block in read_blocks(files.storage, files.key(name), entry.bytes):
            digest.update(block)
            file.write(block)
        file.flush()
        # The checksum is compared before the rename: a damaged file never gets its final name.
        if digest.hexdigest() != entry.sha256:
            raise StoreError(
                f"{name} of {files.where} differs from its checksum and was not kept; "
                "`salibi-data verify` tells more. It has to be published again."
            )
