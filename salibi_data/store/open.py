"""Opening a finished store: in a folder, in a bucket, or as the newest release at an address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from salibi_data.store.errors import StoreError
from salibi_data.store.manifest import ManifestEntry, parse_manifest
from salibi_data.store.redaction import first_line
from salibi_data.store.schema import (
    LATEST_NAME,
    MANIFEST_NAME,
    SAMPLES_NAME,
    Release,
    SchemaError,
    StoreAttributes,
)
from salibi_data.store.storage import (
    BLOCK_TIMEOUT,
    SAMPLE_TIMEOUT,
    failure_reason,
    get_if_present,
    is_url,
    list_sizes_if_allowed,
    local_path,
    open_storage,
    read_blocks,
    sizes_of,
    translate_errors,
)

if TYPE_CHECKING:
    import zarr
    from obstore.store import ObjectStore

GROUP_NAME: Final = "zarr.json"
"""File that makes a folder a Zarr group."""
_CONNECTIONS: Final = 8
"""Files that are asked for at a time."""


@dataclass(frozen=True, kw_only=True)
class StoreFiles:
    """Files of a store, read in the same way wherever they are.

    A dataset that is published again while it is read stays the release that was opened.
    """

    where: str
    """Path or URL as the user gave it, for messages."""
    storage: ObjectStore
    """Storage at that path or URL."""
    release: Release | None = None
    """Newest release of the dataset published there; None where the location is a store itself."""
    timeout: timedelta = BLOCK_TIMEOUT
    """Time limit of one request."""

    @classmethod
    def at(cls, location: str | Path, *, timeout: timedelta = BLOCK_TIMEOUT) -> StoreFiles:
        """Find the store at a path or URL, or the newest release of the dataset published there.

        Raises:
            StoreError: neither is there, it cannot be reached, or it is of a newer schema.
            UsageError: a URL of a scheme that is not read, or with a password or query.
        """
        where = str(location)
        on_disk = not is_url(location) or where.startswith("file:")
        if on_disk and not local_path(location).is_dir():
            raise _no_store(where)
        storage = open_storage(location, timeout=timeout)
        with translate_errors(where, "read"):
            release, refusals = None, list[Exception]()
            if get_if_present(storage, GROUP_NAME, refusals) is None:
                pointer = get_if_present(storage, LATEST_NAME, refusals)
                if pointer is None:
                    raise refusals[0] if refusals else _no_store(where)
                release = parse_release(bytes(pointer.bytes()), where=where)
        return cls(where=where, storage=storage, release=release, timeout=timeout)

    @property
    def _prefix(self) -> str:
        return f"{self.release.store}/" if self.release else ""

    @property
    def folder(self) -> Path | None:
        """Folder of the store; None where it is not on this machine."""
        from obstore.store import LocalStore

        on_disk = isinstance(self.storage, LocalStore)
        return local_path(self.where) / self._prefix if on_disk else None

    def key(self, name: str) -> str:
        """Name of one file's object in :attr:`storage`."""
        return self._prefix + name

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        import obstore

        with translate_errors(f"{name} of {self.where}", "read"):
            return bytes(obstore.get(self.storage, self.key(name)).bytes())

    def listed_sizes(self) -> dict[str, int] | None:
        """Size in bytes of every file that is there, by its name; None where names are not listed.

        Raises:
            StoreError: they cannot be listed at present.
        """
        with translate_errors(self.where, "listed"):
            sizes = list_sizes_if_allowed(self.storage, self._prefix.rstrip("/"))
        return None if sizes is None else self._named(sizes)

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file, by its name; by the manifest where names are not listed.

        Raises:
            StoreError: they cannot be listed at present, or the manifest cannot be read.
        """
        sizes = self.listed_sizes()
        if sizes is not None:
            return sizes
        content = self.manifest_content()
        entries = parse_manifest(content, where=f"{MANIFEST_NAME} of {self.where}")
        return {name: entry.bytes for name, entry in entries.items()} | {
            MANIFEST_NAME: len(content)
        }

    def sizes_of(self, names: Iterable[str]) -> dict[str, int]:
        """Size in bytes of some files, by name, without those that are missing or may not be read.

        Raises:
            StoreError: the server cannot be asked.
        """
        keys = [self.key(name) for name in names]
        with translate_errors(self.where, "read"):
            return self._named(sizes_of(self.storage, keys, workers=_CONNECTIONS))

    def _named(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {key.removeprefix(self._prefix): size for key, size in sizes.items()}

    def sha256(self, name: str, num_bytes: int) -> str:
        """SHA-256 of one file's content, read block by block.

        Raises:
            StoreError: it cannot be read.
        """
        digest = hashlib.sha256()
        with translate_errors(f"{name} of {self.where}", "read"):
            for block in read_blocks(self.storage, self.key(name), num_bytes):
                digest.update(block)
        return digest.hexdigest()

    def manifest(self) -> dict[str, ManifestEntry]:
        """Size and SHA-256 of every file but the manifest; raises as :meth:`manifest_content`."""
        return parse_manifest(self.manifest_content(), where=f"{MANIFEST_NAME} of {self.where}")

    def manifest_content(self) -> bytes:
        """Bytes of the manifest.

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
        """Names of the files beside a published store that differ from their checksums.

        Raises:
            StoreError: one cannot be read.
        """
        import obstore

        if self.release is None:
            return []
        damaged = []
        for name, sha256 in self.release.cards.items():
            with translate_errors(f"{name} of {self.where}", "read"):
                card = obstore.get(self.storage, f"{self.release.folder}/{name}").bytes()
            if hashlib.sha256(card).hexdigest() != sha256:
                damaged.append(name)
        return damaged

    def open(self) -> tuple[Any, StoreAttributes]:
        """Open the Zarr group and read its attributes.

        Raises:
            StoreError: no Zarr group, not ours, not finished, damaged, or of a newer schema.
        """
        group = self.group()
        attributes = parse_attributes(group.attrs, where=self.where)
        with translate_errors(f"{MANIFEST_NAME} of {self.where}", "read"):
            if get_if_present(self.storage, self.key(MANIFEST_NAME)) is None:
                raise StoreError(
                    f"{self.where} has no {MANIFEST_NAME}, which is written last: the store is not "
                    "complete. Remove it, and build or pull it again."
                )
        return group, attributes

    def zarr_storage(self) -> Any:
        """Zarr's storage of the group, read-only."""
        from zarr.storage import LocalStore, ObjectStore

        from salibi_data.store.zarr_storage import UnlistedStorage

        if self.folder is not None:
            return LocalStore(self.folder, read_only=True)
        storage = self.storage
        if self.release is not None:
            url = f"{self.where.rstrip('/')}/{self.release.store}"
            storage = open_storage(url, timeout=self.timeout)
        return UnlistedStorage(
            ObjectStore(storage, read_only=True), self.where, lambda: frozenset(self.manifest())
        )

    def group(self, storage: Any = None) -> Any:
        """Open the Zarr group.

        Args:
            storage: Zarr's storage of it; default :meth:`zarr_storage`.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        import zarr
        from zarr.errors import ContainsArrayError, GroupNotFoundError

        absent = (GroupNotFoundError, ContainsArrayError, FileNotFoundError, NotADirectoryError)
        with translate_errors(self.where, "read"):
            try:
                # With the format given, Zarr does not ask for the files of version 2 as well.
                return zarr.open_group(storage or self.zarr_storage(), mode="r", zarr_format=3)
            except absent as error:
                raise _no_store(self.where) from error
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(damage_message(self.where, error)) from error

    def samples(self, columns: list[str] | None = None) -> tuple[Any, dict[str, Any]]:
        """Read the samples' table, or some columns of it, and its metadata.

        Raises:
            StoreError: it cannot be read.
            PlanError: it is damaged, or was not written by this software.
        """
        from salibi_data.store import geoparquet

        where = f"{SAMPLES_NAME} of {self.where}"
        return geoparquet.read(BytesIO(self.read(SAMPLES_NAME)), columns, where=where)

    def samples_file(self) -> Path | IO[bytes]:
        """Path of the samples' table, or its content where the store is not on this machine.

        Raises:
            StoreError: it cannot be read.
        """
        if self.folder is not None:
            return self.folder / SAMPLES_NAME
        return BytesIO(self.read(SAMPLES_NAME))


def open_store(location: str | Path) -> tuple[Any, StoreAttributes]:
    """Open a finished store, or the newest release of the dataset published at an address.

    Args:
        location: path or URL of the Zarr group, or of a published dataset.

    Returns:
        The Zarr group, read-only, and its attributes.

    Raises:
        StoreError: no store is there, it is not finished, damaged, of a newer schema, or it cannot
            be reached.
        UsageError: a URL of a scheme that is not read, or with a password or query.

    Example:
        >>> group, attributes = salibi_data.open_store(store_path)
        >>> group["lores"].shape[1:], attributes.base_zoom
        ((3, 256, 256), 17)
    """
    return StoreFiles.at(location).open()


def open_group(location: str) -> zarr.Group:
    """Open a Zarr group for reading single samples: see :class:`ShardStorage`.

    What is read of a release over the network is kept on disk if the environment asks for it
    (:mod:`salibi_data.store.zarr_storage`).

    Raises:
        StoreError: there is none, it is damaged, or it cannot be reached.
        UsageError: a URL of a scheme that is not read, or with a password or query.
    """
    from salibi_data.store.zarr_storage import CachedRelease, ShardStorage, cache_from_environment

    files = StoreFiles.at(location, timeout=SAMPLE_TIMEOUT)
    storage = files.zarr_storage()
    if files.release is not None and files.folder is None:
        cache = cache_from_environment()
        if cache is not None:
            storage = CachedRelease(storage, cache, files.release.manifest_sha256)
    group: zarr.Group = files.group(ShardStorage(storage, files.where))
    return group


def open_array(group: zarr.Group, name: str, *, where: str) -> zarr.Array[Any]:
    """Open an array of a group.

    Raises:
        StoreError: there is none of that name, or its metadata are damaged.
    """
    import zarr
    from obstore.exceptions import BaseError

    try:
        array = group[name]
    except KeyError:
        array = None
    except (BaseError, ValueError, TypeError) as error:
        raise StoreError(damage_message(f"{where}: array {name!r}", error)) from error
    if not isinstance(array, zarr.Array):
        raise StoreError(
            f"{where} has no array {name!r}, though a Salibi store must. Build or pull it again."
        )
    return array


def damage_message(what: str, error: Exception) -> str:
    """One line that says that something cannot be read, why, and what to do."""
    from obstore.exceptions import BaseError

    if isinstance(error, BaseError):
        return f"{what} cannot be read: {failure_reason(error)}."
    return (
        f"{what} cannot be read ({first_line(error)}). `salibi-data verify` tells which of a store's "
        "files are damaged; pull or build it again."
    )


def parse_release(content: bytes, *, where: str) -> Release:
    """Parse the ``latest.json`` of the dataset published at ``where``.

    Raises:
        StoreError: it is damaged, or of a newer schema.
    """
    try:
        return Release.from_json(content, where=where)
    except SchemaError as error:
        raise StoreError(str(error)) from error


def parse_attributes(attributes: Mapping[str, Any], *, where: str) -> StoreAttributes:
    """Parse the group attributes of the store at ``where``.

    Raises:
        StoreError: they are not those of a Salibi store, damaged, or of a newer schema.
    """
    try:
        return StoreAttributes.from_dict(dict(attributes), where=where)
    except SchemaError as error:
        raise StoreError(str(error)) from error
    except (ValueError, ArithmeticError) as error:
        raise StoreError(
            f"{where} has damaged attributes ({error}). Build or pull the store again."
        ) from error


def _no_store(where: str) -> StoreError:
    return StoreError(
        f"{where} is not a Salibi store: no Zarr group is there. Check the path, or build one with "
        "`salibi-data build`."
    )
