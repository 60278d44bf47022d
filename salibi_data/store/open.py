"""The files of a finished store, in a folder, in a bucket, or as the newest release at an address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from salibi_data.store.errors import StoreError
from salibi_data.store.schema import (
    LATEST_NAME,
    MANIFEST_NAME,
    SAMPLES_NAME,
    Release,
    SchemaError,
    StoreAttributes,
)
from salibi_data.store.storage import (
    blocks,
    explained,
    is_url,
    listing,
    local_path,
    place,
    reason,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

GROUP_NAME: Final = "zarr.json"
"""What makes a folder a Zarr group."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, as the manifest has it."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoreFiles:
    """A store's files, read alike wherever they lie.

    A store that is published anew while it is read goes on being the release that was opened.
    """

    where: str
    """The path or URL it was asked for by, for messages."""
    storage: ObjectStore
    """What the location names."""
    release: Release | None = None
    """What was published there; None where the location is a store itself."""

    @classmethod
    def at(cls, location: str | Path) -> StoreFiles:
        """Find the store at a path or URL, or the newest release of the dataset published there.

        Raises:
            StoreError: neither is there, it cannot be reached, or it is of a newer schema.
            UsageError: a URL of a kind that is not read, or with a password or query in it.
        """
        where = str(location)
        on_disk = not is_url(location) or where.startswith("file:")
        if on_disk and not local_path(location).is_dir():
            raise _no_store(where)
        storage = place(location)
        with explained(where, "read"):
            if get_if_there(storage, GROUP_NAME) is not None:
                return cls(where=where, storage=storage)
            latest = get_if_there(storage, LATEST_NAME)
            if latest is None:
                raise _no_store(where)
            release = read_pointer(bytes(latest.bytes()), where=where)
        return cls(where=where, storage=storage, release=release)

    @property
    def _prefix(self) -> str:
        return f"{self.release.store}/" if self.release else ""

    def key(self, name: str) -> str:
        """Name of one file's object in :attr:`storage`."""
        return self._prefix + name

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        import obstore

        with explained(f"{name} of {self.where}", "read"):
            return bytes(obstore.get(self.storage, self.key(name)).bytes())

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file that is there, by its name.

        Raises:
            StoreError: they cannot be listed.
        """
        with explained(self.where, "listed"):
            found = listing(self.storage, self._prefix.rstrip("/"))
        return {name.removeprefix(self._prefix): size for name, size in found.items()}

    def sha256(self, name: str, num_bytes: int) -> str:
        """SHA-256 of one file's content, read block by block.

        Raises:
            StoreError: it cannot be read.
        """
        digest = hashlib.sha256()
        with explained(f"{name} of {self.where}", "read"):
            for block in blocks(self.storage, self.key(name), num_bytes):
                digest.update(block)
        return digest.hexdigest()

    def manifest(self) -> dict[str, Entry]:
        """Size and SHA-256 of every file but the manifest itself; raises as the next."""
        return read_manifest(self.manifest_content(), where=f"{MANIFEST_NAME} of {self.where}")

    def manifest_content(self) -> bytes:
        """The manifest as it lies there.

        Raises:
            StoreError: it cannot be read, or is not the one that was published.
        """
        content = self.read(MANIFEST_NAME)
        if self.release and hashlib.sha256(content).hexdigest() != self.release.manifest_sha256:
            raise StoreError(
                f"{MANIFEST_NAME} of {self.where} is not the one that was published; publish it again."
            )
        return content

    def damaged_cards(self) -> list[str]:
        """Which of the files beside a published store differ from their checksums.

        Raises:
            StoreError: one cannot be read.
        """
        import obstore

        if self.release is None:
            return []
        damaged = []
        for name, sha256 in self.release.cards.items():
            with explained(f"{name} of {self.where}", "read"):
                card = obstore.get(self.storage, f"{self.release.folder}/{name}").bytes()
            if hashlib.sha256(card).hexdigest() != sha256:
                damaged.append(name)
        return damaged

    def open(self) -> tuple[Any, StoreAttributes]:
        """The Zarr group and its attributes.

        Raises:
            StoreError: no Zarr group, not ours, not finished, damaged, or of a newer schema.
        """
        group = self.group()
        attributes = read_attributes(group.attrs, where=self.where)
        with explained(self.where, "read"):
            if get_if_there(self.storage, self.key(MANIFEST_NAME)) is None:
                raise StoreError(
                    f"{self.where} has no {MANIFEST_NAME}, which comes last: it is not a whole store. "
                    "Remove it, and build or pull it again."
                )
        return group, attributes

    @property
    def folder(self) -> Path | None:
        """The store's folder, where it lies on this machine."""
        from obstore.store import LocalStore

        on_disk = isinstance(self.storage, LocalStore)
        return local_path(self.where) / self._prefix if on_disk else None

    def zarr_storage(self) -> Any:
        """Zarr's storage of the group, read-only."""
        from zarr.storage import LocalStore as Folder
        from zarr.storage import ObjectStore as Bucket

        if self.folder is not None:
            return Folder(self.folder, read_only=True)
        if self.release is None:
            return Bucket(self.storage, read_only=True)
        return Bucket(place(f"{self.where.rstrip('/')}/{self.release.store}"), read_only=True)

    def group(self, storage: Any = None) -> Any:
        """The Zarr group, through ``storage`` in place of :meth:`zarr_storage` where given.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        import zarr
        from zarr.errors import ContainsArrayError, GroupNotFoundError

        absent = (GroupNotFoundError, ContainsArrayError, FileNotFoundError, NotADirectoryError)
        with explained(self.where, "read"):
            try:
                return zarr.open_group(storage or self.zarr_storage(), mode="r")
            except absent as error:
                raise _no_store(self.where) from error
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{self.where} has damaged metadata; build or pull it again."
                ) from error

    def samples(self, columns: list[str] | None = None) -> tuple[Any, dict[str, Any]]:
        """The table of the samples, or some columns of it, and what it says of itself.

        Raises:
            StoreError: it cannot be read.
            PlanError: it is damaged, or was not written by this software.
        """
        from salibi_data.store import geoparquet

        where = f"{SAMPLES_NAME} of {self.where}"
        return geoparquet.read(BytesIO(self.read(SAMPLES_NAME)), columns, where=where)

    def samples_file(self) -> Path | IO[bytes]:
        """The file of the table, or its content where the store is not on this machine.

        Raises:
            StoreError: it cannot be read.
        """
        if self.folder is not None:
            return self.folder / SAMPLES_NAME
        return BytesIO(self.read(SAMPLES_NAME))


def get_if_there(storage: ObjectStore, name: str) -> Any:
    """An object as obstore gives it; None where there is none, though its bucket is there."""
    import obstore

    try:
        return obstore.get(storage, name)
    except FileNotFoundError as error:
        if "bucket" in reason(error):  # which storage tells in the same way
            raise
        return None


def read_pointer(content: bytes, *, where: str) -> Release:
    """Parse the ``latest.json`` of the dataset published at ``where``.

    Raises:
        StoreError: it is damaged, or of a newer schema.
    """
    try:
        return Release.from_json(content, where=where)
    except SchemaError as error:
        raise StoreError(str(error)) from error


def read_attributes(attributes: Mapping[str, Any], *, where: str) -> StoreAttributes:
    """Parse the group attributes of the store at ``where``.

    Raises:
        StoreError: they are not those of a Salibi store, damaged, or of a newer schema.
    """
    try:
        return StoreAttributes.from_dict(dict(attributes), where=where)
    except SchemaError as error:
        raise StoreError(str(error)) from error


def read_manifest(content: bytes, *, where: str) -> dict[str, Entry]:
    """Size and SHA-256 of every file, from the bytes of a manifest.

    Raises:
        StoreError: it is damaged.
    """
    try:
        files: Mapping[str, Any] = json.loads(content)["files"]
        entries = {
            name: Entry(bytes=int(entry["bytes"]), sha256=str(entry["sha256"]))
            for name, entry in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where} is damaged; build or pull it again.") from error
    if any(".." in PurePosixPath(name).parts or name.startswith("/") for name in entries):
        raise StoreError(f"{where} is damaged: it names files outside of the store.")
    return entries


def _no_store(where: str) -> StoreError:
    return StoreError(
        f"{where} is not a Salibi store: no Zarr group is there. Check the path, or build one with "
        "`salibi-data build`."
    )


def open_store(store: str | Path) -> tuple[Any, StoreAttributes]:
    """The Zarr group and its attributes, of a store or of the newest release at an address.

    Raises:
        StoreError: no folder, no Zarr group, not a finished store, or it cannot be reached.
        StoreError: not ours, damaged, or of a newer schema.
    """
    return StoreFiles.at(store).open()
