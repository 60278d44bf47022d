"""Reads and replaces ``latest.json``, the pointer to the newest release of a dataset.

The pointer is the only object of a published dataset that changes. It is replaced on the condition
that it has not changed since it was read, so that two publishers cannot undo each other's work. Some
servers of the S3 kind lack conditional puts: there the user has to give up this protection.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.errors import StoreError
from salibi_data.store.open import parse_release
from salibi_data.store.schema import LATEST_NAME, Release
from salibi_data.store.storage import get_if_present, http_status, names_at

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_NO_CONDITION: Final = frozenset({400, 405, 422, 501})
"""Statuses by which servers refuse a header ``If-Match`` or ``If-None-Match`` that they do not know."""


@dataclass(frozen=True, kw_only=True)
class Latest:
    """Pointer at a dataset's address, as it was read."""

    url: str
    release: Release | None
    """Newest release; None where nothing has been published."""
    version: Any
    """Entity tag or version of the object in the storage; None where there is no pointer."""
    is_refused: bool = False
    """Whether access to the pointer was refused: it is missing, unless it may be written only."""

    @classmethod
    def read(cls, target: ObjectStore, url: str) -> Latest:
        """Read the pointer.

        Raises:
            StoreError: it is damaged, or of a newer schema.
        """
        refusals: list[Exception] = []
        pointer = get_if_present(target, LATEST_NAME, refusals)
        if pointer is None:
            return cls(url=url, release=None, version=None, is_refused=bool(refusals))
        release = parse_release(bytes(pointer.bytes()), where=url)
        version = {key: pointer.meta.get(key) for key in ("e_tag", "version")}
        known = {key: value for key, value in version.items() if value is not None}
        return cls(url=url, release=release, version=known)

    def check(self, dataset: str, catalog: str, others: Sequence[str]) -> None:
        """Check that a release of a dataset may be published at the address.

        Args:
            dataset: name of the dataset.
            catalog: catalog that its images are from.
            others: names of other objects at the address.

        Raises:
            StoreError: something else is at the address.
        """
        elsewhere = f"publish to an address of its own, such as {self.url.rstrip('/')}/{dataset}"
        if self.release is None:
            if others:
                examples = ", ".join(others[:3]) + (", .." if others[3:] else "")
                raise StoreError(
                    f"{self.url} holds something else than releases of a dataset ({examples}); "
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
        """Make ``release`` the newest release, if the pointer has not changed since it was read.

        Raises:
            StoreError: another release was published meanwhile, or the server cannot put on condition.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
        from obstore.store import LocalStore

        if release == self.release:
            return
        content = (json.dumps(release.to_dict(), indent=1, sort_keys=True) + "\n").encode()
        put: dict[str, Any] = {"mode": self.version or "create", "use_multipart": False}
        if not isinstance(target, LocalStore):
            # Google's storage lets caches keep public objects for an hour unless it is told not to.
            put["attributes"] = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
        try:
            obstore.put(target, LATEST_NAME, content, **put)
        except NotImplementedError:  # a folder, or AWS_CONDITIONAL_PUT=disabled
            now = Latest.read(target, self.url)
            if now.release == self.release:
                obstore.put(target, LATEST_NAME, content, **{**put, "mode": "overwrite"})
            elif now.release != release:
                raise self._replaced_meanwhile() from None
        except (AlreadyExistsError, PreconditionError) as error:
            now = Latest.read(target, self.url)
            if now.release != release:  # else another publisher of the same store was faster
                raise self._condition_failed(now, http_status(error)) from error
        except BaseError as error:
            # Data were put before, without a condition: what the server refuses is the condition.
            if http_status(error) not in _NO_CONDITION:
                raise
            reason = f"the server answered {http_status(error)} to a put with a condition"
            raise self._unconditional(reason) from error

    def _condition_failed(self, now: Latest, status: int | None) -> StoreError:
        # 409: another publisher is writing it at this moment.
        if now.release != self.release or status == 409:  # noqa: PLR2004
            return self._replaced_meanwhile()
        return self._unconditional(now.broken_condition())

    def broken_condition(self) -> str:
        """Reason why the server calls the pointer changed though it has not changed."""
        if self.is_refused:
            return "access to it is refused"
        if str((self.version or {}).get("e_tag", "")).startswith("W/"):
            return "its entity tag is weak"
        if self.release is not None and not self.version:
            return "it has no entity tag"
        return "the server calls it changed, though it has not changed"

    def _replaced_meanwhile(self) -> StoreError:
        return StoreError(
            f"another release was published to {self.url} meanwhile; run the same command again "
            "if this one is to be the newest."
        )

    def _unconditional(self, reason: str) -> StoreError:
        return StoreError(
            f"{LATEST_NAME} of {self.url} cannot be replaced on condition that nobody else has: "
            f"{reason}. All other files were sent. Set AWS_CONDITIONAL_PUT=disabled and run the same "
            "command again to replace it anyway; of two publishers at once, one is then lost."
        )


def others_at(target: ObjectStore) -> list[str]:
    """Names of what lies at an address besides releases; none where names may not be listed."""
    return [name for name in names_at(target) or () if name not in ("releases", LATEST_NAME)]
