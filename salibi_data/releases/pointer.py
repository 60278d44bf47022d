"""``latest.json``: which release of a dataset is the newest, and putting another in its place.

It is the one object of a published dataset that ever changes. It is put on condition that it is
what was read before: two who publish at once do not undo each other's work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salibi_data.store.errors import StoreError
from salibi_data.store.open import parse_release
from salibi_data.store.schema import LATEST_NAME, Release
from salibi_data.store.storage import get_if_present

if TYPE_CHECKING:
    from obstore.store import ObjectStore


@dataclass(frozen=True, kw_only=True)
class Latest:
    """The pointer at a dataset's address, as it was read."""

    url: str
    release: Release | None
    """None where nothing has been published."""
    version: Any
    """By which the storage tells whether it changed; None where there is none."""

    @classmethod
    def read(cls, target: ObjectStore, url: str) -> Latest:
        """Read the pointer.

        Raises:
            StoreError: it is damaged, or of a newer schema.
        """
        found = get_if_present(target, LATEST_NAME)
        if found is None:
            return cls(url=url, release=None, version=None)
        release = parse_release(bytes(found.bytes()), where=url)
        version = {key: found.meta.get(key) for key in ("e_tag", "version")}
        kept = {key: value for key, value in version.items() if value is not None}
        return cls(url=url, release=release, version=kept)

    def check(self, dataset: str, catalog: str, others: Sequence[str]) -> None:
        """See whether a release of this dataset may be published here.

        Args:
            dataset: name of the dataset.
            catalog: where its images are from.
            others: what else lies at the address.

        Raises:
            StoreError: something else is here.
        """
        elsewhere = f"publish to an address of its own, such as {self.url.rstrip('/')}/{dataset}"
        if self.release is None:
            if others:
                shown = ", ".join(others[:3]) + (", .." if others[3:] else "")
                raise StoreError(
                    f"{self.url} holds something else than releases of a dataset ({shown}); "
                    f"{elsewhere}."
                )
            return
        if self.release.dataset != dataset:
            raise StoreError(
                f"{self.url} holds the dataset {self.release.dataset!r}, and this is {dataset!r}; "
                f"{elsewhere}, or, if it is a newer release of the same, give --name "
                f"{self.release.dataset}."
            )
        if self.release.catalog != catalog:
            raise StoreError(
                f"{self.url} holds {dataset!r} of the catalog {self.release.catalog!r}, and this is "
                f"of {catalog!r}; {elsewhere}-{catalog}."
            )

    def replace_by(self, release: Release, target: ObjectStore) -> None:
        """Make ``release`` the newest, if the pointer still is as it was read.

        Raises:
            StoreError: another release was published meanwhile.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError
        from obstore.store import LocalStore

        if release == self.release:
            return
        content = (json.dumps(release.to_dict(), indent=1, sort_keys=True) + "\n").encode()
        put: dict[str, Any] = {"mode": self.version or "create", "use_multipart": False}
        if not isinstance(target, LocalStore):
            # Google's storage lets caches keep public objects for an hour unless it is told not to.
            put["attributes"] = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
        try:
            try:
                obstore.put(target, LATEST_NAME, content, **put)
            except NotImplementedError:  # a folder, or AWS_CONDITIONAL_PUT=disabled
                if Latest.read(target, self.url) != self:
                    raise PreconditionError from None
                obstore.put(target, LATEST_NAME, content, **{**put, "mode": "overwrite"})
        except (AlreadyExistsError, PreconditionError) as error:
            if Latest.read(target, self.url).release == release:
                return  # by another who published the same
            raise StoreError(
                f"another release was published to {self.url} meanwhile; run the same command again "
                "if this one is to be the newest."
            ) from error


def others_at(target: ObjectStore) -> list[str]:
    """What lies at an address besides releases."""
    import obstore

    found = obstore.list_with_delimiter(target)
    names = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
    return [name for name in names if name not in ("releases", LATEST_NAME)]
