"""All items of a search in a STAC API: pages, their size, and the method of the requests.

Links to next pages repeat or alternate at some APIs, counts are estimates, pages of many items are
refused, and POST is not served everywhere. A search ends with all items, or with one clear error.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

from salibi_data.catalog.api_client import (
    TOO_SLOW,
    ApiAnswer,
    ApiClient,
    ApiRequest,
    ApiRequestError,
    Deadline,
    SearchSettings,
    query_of,
)
from salibi_data.catalog.item_checks import is_of_other_collection, stated_collection
from salibi_data.catalog.scenes import known_number
from salibi_data.store.errors import CatalogError
from salibi_data.store.redaction import redact, redacted_line

if TYPE_CHECKING:
    from pystac_client import Client

    from salibi_data.catalog.dates import Interval
    from salibi_data.store.tiles import Bounds

log = logging.getLogger(__name__)

PAUSES_S: Final = (1.0, 2.0)
"""Pauses after which a whole failed search is repeated."""
PATIENT_PAUSES_S: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
"""Pauses of an API that has answered before."""
MAX_PAGES: Final = 10_000
"""Pages of one search; more come from an API that does not end."""
MAX_BARREN_PAGES: Final = 10
"""Pages in a row that bring no new item, though each links to a further one. Some APIs filter after
they have cut the pages, so that one of these may be empty."""
_MAX_BARREN_PAGES_AT_COUNT: Final = 2
"""The same where as many items as stated are there already."""

_SIZE_REFUSED: Final = frozenset({400, 413, 422})
"""Statuses that mean, among other things, that a page may not have as many items."""
_MIN_SLOW_ITEMS: Final = 3
"""Smallest page to try where the server is too slow: below it, it fails for another reason."""
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 422, 501})
"""Statuses that stay the same, unless the API has answered such a search before."""
_POST_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 411, 413, 415, 422, 501})
_UNWANTED_PAGES: Final = 20
"""Further pages to look for an item that was asked for, after one of other collections alone."""
_NUM_ANSWERS: Final = 3
"""Answers that may lack items before the search counts as failed."""


class _OtherCollectionError(Exception):
    """Items of an answer are of other collections than the one asked for."""


@dataclass(frozen=True, kw_only=True)
class FoundItem:
    """One feature of an answer; nothing about it is checked."""

    item: Any
    """Parsed JSON."""
    page_url: str
    """Address of the page, to which an item without an address of its own is relative."""


@dataclass(frozen=True)
class _Query:
    """What a search asks for."""

    collection: str
    bounds_lonlat: Bounds
    interval: Interval | None
    max_items: int | None
    """Items after which the search ends; None for all."""

    def halves(self) -> list[_Query]:
        """Return queries of the western and the eastern half of the area."""
        west, south, east, north = self.bounds_lonlat
        middle = (west + east) / 2
        boxes = (west, south, middle, north), (middle, south, east, north)
        return [replace(self, bounds_lonlat=box) for box in boxes]


@dataclass(kw_only=True)
class _Answer:
    """Items of the pages so far."""

    collection: str
    """Id of the collection that was asked for."""
    items: dict[str, FoundItem] = field(default_factory=dict)
    """Distinct items; one that comes with several contents is there with each."""
    ids: set[str] = field(default_factory=set)
    """Identifiers of the items; of one without, its content."""
    other_collections: Counter[str] = field(default_factory=Counter)
    """Number of items of each other collection."""
    num_stated: int | None = None
    end: str = ""
    """Reason to stop though the last page links to a further one; none where it does not."""

    def add(self, features: Sequence[Any], url: str) -> set[str]:
        """Add the features of a page; return the identifiers of those that are new."""
        new: set[str] = set()
        for feature in features:
            content = json.dumps(feature, sort_keys=True)
            self.items.setdefault(content, FoundItem(item=feature, page_url=url))
            name = feature.get("id") if isinstance(feature, dict) else None
            # Pages that are given twice have other signatures in their hrefs.
            key = json.dumps([feature.get("collection"), name]) if name else content
            is_known = key in self.ids or key in new
            if not is_known and is_of_other_collection(feature, self.collection):
                self.other_collections[str(stated_collection(feature))[:60]] += 1
            new.add(key)
        new -= self.ids
        self.ids |= new
        return new

    @property
    def num_wanted(self) -> int:
        return len(self.ids) - self.other_collections.total()

    def check_collections(self, *, strict: bool = False) -> None:
        """Raise where all items, or if strict any, are of other collections."""
        if self.other_collections and (strict or self.num_wanted == 0):
            raise _OtherCollectionError(
                f"{self.other_collections.total()} items of other collections "
                f"({', '.join(sorted(self.other_collections)[:3])}) and {self.num_wanted} of its own"
            )

    @property
    def has_all_stated(self) -> bool:
        return self.num_stated is not None and len(self.ids) >= self.num_stated

    @property
    def is_doubtful(self) -> bool:
        """Whether there may be further items."""
        return not self.has_all_stated and (self.num_stated is not None or bool(self.end))

    def __str__(self) -> str:
        of = "" if self.num_stated is None else f" of {self.num_stated}"
        return f"{self.end or 'paging ended'} after {len(self.ids)}{of} items"


class ItemApi:
    """Searches one STAC API. What it has shown to accept is kept: method, page size, address.

    Args:
        name: name of the catalog in messages.
        url: address of the landing page.
        method: HTTP method to begin with.
    """

    def __init__(self, name: str, url: str, method: str) -> None:
        self._name, self._url, self._method = name, url, method
        self._settings = SearchSettings.from_environment()
        self._client = ApiClient(self._settings)
        self._page_items = min(self._settings.page_items, 10_000)  # the standard's maximum
        self._landing: Client | None = None
        self._has_answered = False
        self._known_ids: set[str] = set()

    def find(
        self, collection: str, bounds: Bounds, interval: Interval | None, max_items: int | None
    ) -> list[FoundItem]:
        """Return the items of all pages; repeat the search where an answer fails.

        Args:
            collection: id of the collection.
            bounds: (west, south, east, north) in degrees.
            interval: closed interval of times; None for all.
            max_items: items of the collection after which the search ends; None for all.

        Raises:
            CatalogError: the API cannot be reached, does not end, ends early, or answers with items
                of other collections only.
        """
        query, settings = _Query(collection, bounds, interval, max_items), self._settings
        # An API that has answered before is waited for; one that never has may be misspelt.
        limit_s = settings.deadline_s if self._has_answered else settings.timeout_s
        pauses_s = list(PATIENT_PAUSES_S if self._has_answered else PAUSES_S)
        deadline = self._client.deadline = Deadline(limit_s)
        self._known_ids.clear()
        expected = _answer_errors()
        where = f"catalog {self._name!r} at {redact(self._url)}"
        while True:
            try:
                answer = self._by_any_method(query)
            except expected as error:
                wait_s = pauses_s.pop(0) * random.uniform(0.5, 1.5) if pauses_s else math.inf
                is_refused = getattr(error, "status", None) in _REFUSED and not self._has_answered
                if is_refused or wait_s >= deadline.remaining_s():
                    raise CatalogError(
                        f"{where} cannot be searched for {query.collection}: "
                        f"{redacted_line(error)}. Check the address and the network, and run again; "
                        "what was found is kept."
                    ) from error
                time.sleep(wait_s)
            except _OtherCollectionError as error:
                raise CatalogError(
                    f"{where} was searched for {query.collection} and answers with {error}: it ignores "
                    "the filter, or redirects the search. Check the address and the collection."
                ) from None
            else:
                self._has_answered = True
                return list(answer.items.values())

    def _by_any_method(self, query: _Query) -> _Answer:
        """Search by POST, and by GET where that is refused or loses the query."""
        if self._method == "GET":
            return self._by_any_size(query, "GET")
        first: ApiRequestError | _OtherCollectionError
        try:
            return self._by_any_size(query, "POST", strict=True)
        except _OtherCollectionError as error:
            first = error
        except ApiRequestError as error:
            is_over = self._client.deadline.remaining_s() <= 0
            if is_over or error.status not in _POST_REFUSED | TOO_SLOW:
                raise
            first = error
        try:
            answer = self._by_any_size(query, "GET")
        except (ApiRequestError, _OtherCollectionError):
            if isinstance(first, _OtherCollectionError):  # perhaps it has some that were asked for
                return self._by_any_size(query, "POST")
            raise first from None
        log.info("catalog %s is searched by GET from now on", self._name)
        self._method = "GET"
        return answer

    def _by_any_size(self, query: _Query, method: str, *, strict: bool = False) -> _Answer:
        """Search with pages of ever fewer items while their size may be what is refused."""
        size = self._page_items
        while True:
            try:
                answer = self._whole_answer(query, method, size, strict=strict)
            except ApiRequestError as failure:
                is_slow = failure.status in TOO_SLOW and size > _MIN_SLOW_ITEMS
                is_over = self._client.deadline.remaining_s() <= 0
                if is_over or size == 1 or not (is_slow or failure.status in _SIZE_REFUSED):
                    raise
                size //= 2
            else:
                self._page_items = size
                return answer

    def _whole_answer(self, query: _Query, method: str, size: int, *, strict: bool) -> _Answer:
        """Search, and prove an answer that may lack items by searches of both halves of the area.

        A count may be an estimate that no answer ever reaches. An answer that was cut short shows by
        items of a half that it does not have.

        Raises:
            ApiRequestError: every answer lacks items.
        """
        for _ in range(_NUM_ANSWERS):
            answer = self._pages(query, method, size, strict=strict)
            answer.check_collections()
            if query.max_items is not None or not answer.is_doubtful:
                return answer
            halves = [self._pages(half, method, size) for half in query.halves()]
            if all(half.ids <= answer.ids for half in halves):
                message = "catalog %s: %s; searches of both halves of the area gave no others"
                log.warning(message, self._name, answer)
                return answer
        raise ApiRequestError(f"{answer}, and a search of half the area gives others")

    def _pages(self, query: _Query, method: str, size: int, *, strict: bool = False) -> _Answer:
        """Collect the items of all pages."""
        first = request = self._first_request(query, method, size)
        seen, answer, num_barren = {request.key}, _Answer(collection=query.collection), 0
        for number in range(MAX_PAGES):
            response = self._client.ask(request, is_large=size > _MIN_SLOW_ITEMS)
            page = _page_of(response)
            new = answer.add(page["features"], response.url)
            if number == _UNWANTED_PAGES or (strict and number == 0):
                answer.check_collections(strict=strict)
            num_barren = 0 if new else num_barren + 1
            # A search that is repeated makes no progress until it comes to other items.
            if new - self._known_ids:
                self._client.deadline.restart()
            self._known_ids |= new
            answer.num_stated = _larger(answer.num_stated, _stated(page))
            if query.max_items is not None and answer.num_wanted >= query.max_items:
                return answer
            following = _next_request(page, response.url, first, method)
            barren_pages = _MAX_BARREN_PAGES_AT_COUNT if answer.has_all_stated else MAX_BARREN_PAGES
            if following is not None and following.key in seen:
                answer.end = "a link to the next page repeats"
            elif following is not None and num_barren > barren_pages:
                answer.end = f"{num_barren} pages in a row bring no new item"
            if following is None or answer.end:
                if answer.end:
                    log.warning("catalog %s: the search ended, as %s", self._name, answer)
                return answer
            seen.add(following.key)
            request = following
        raise ApiRequestError(f"the search does not end: there are more than {MAX_PAGES} pages")

    def _first_request(self, query: _Query, method: str, size: int) -> ApiRequest:
        from pystac_client.warnings import PystacClientWarning

        with warnings.catch_warnings():
            # Whether POST is served shows by the answer; APIs that serve it do not always say so.
            warnings.simplefilter("ignore", PystacClientWarning)
            search = self._open_landing().search(
                method=method,
                collections=[query.collection],
                bbox=query.bounds_lonlat,
                datetime=query.interval,
                limit=min(size, query.max_items or size),
                max_items=query.max_items,
            )
        return ApiRequest(method=method, url=search.url, parameters=search.get_parameters())

    def _open_landing(self) -> Client:
        """Read the landing page, which says where and how the API is searched."""
        if self._landing is None:
            from pystac_client import Client

            answer = self._client.ask(ApiRequest(method="GET", url=self._url))
            page = json.loads(answer.body)
            self._landing = Client.from_dict(page, href=answer.url, migrate=True)
        return self._landing


def _page_of(response: ApiAnswer) -> dict[str, Any]:
    """Parse a page of items."""
    try:
        page = json.loads(response.body)
    except ValueError as error:
        raise ValueError(f"{response.url} answers with what is no JSON: {error}") from None
    if not (isinstance(page, dict) and isinstance(page.get("features"), list)):
        raise TypeError(f"{response.url} answers without a list of items")
    return page


def _answer_errors() -> tuple[type[Exception], ...]:
    """Return what is raised where there is no answer, or none that is a page of items."""
    import pystac
    from pystac_client.exceptions import APIError
    from pystac_client.warnings import PystacClientWarning

    malformed = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
    # pystac-client raises its warning where an API offers no search.
    library_errors = (pystac.STACError, pystac.STACTypeError, APIError, PystacClientWarning)
    return (ApiRequestError, *malformed, *library_errors, NotImplementedError)


def _next_request(page: Any, url: str, first: ApiRequest, method: str) -> ApiRequest | None:
    """Return the request for the next page, by the rules of STAC API 1.0 (item search, paging)."""
    links = page.get("links") or []
    link = next((one for one in links if isinstance(one, dict) and one.get("rel") == "next"), None)
    if link is None or not link.get("href"):
        return None
    href, headers = urljoin(url, str(link["href"])), link.get("headers") or {}
    if str(link.get("method") or "GET").upper() == "GET":
        return ApiRequest(method="GET", url=href, headers=headers)
    # Without a body of its own, or with one to be merged, the first one counts.
    body = link.get("body")
    original = first.parameters if link.get("merge") or not body else {}
    parameters = {**original, **(body or {})}
    if method == "GET":  # a POST is not served, though the link may say so
        return ApiRequest(method="GET", url=href, parameters=query_of(parameters), headers=headers)
    return ApiRequest(method="POST", url=href, parameters=parameters, headers=headers)


def _stated(page: Any) -> int | None:
    """Return the number of items that an answer states, None where it states none.

    ``numberMatched`` is OGC API Features; older servers state it in the context extension.
    """
    context = page.get("context")
    matched = context.get("matched") if isinstance(context, dict) else None
    numbers = (known_number(value, above=-1) for value in (page.get("numberMatched"), matched))
    return next((int(number) for number in numbers if number is not None), None)


def _larger(first: int | None, second: int | None) -> int | None:
    stated = [number for number in (first, second) if number is not None]
    return max(stated, default=None)
