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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

from salibi_data.catalog.api_client import (
    TOO_SLOW,
    ApiClient,
    ApiRequest,
    ApiRequestError,
    Deadline,
    SearchSettings,
    query_of,
)
from salibi_data.catalog.item_checks import is_of_other_collection
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
_MIN_SLOW_ITEMS: Final = 15
"""Smallest page to try where the server is too slow: below it, it fails for another reason."""
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 422, 501})
"""Statuses that stay the same, unless the API has answered such a search before."""
_POST_REFUSED: Final = frozenset({403, 404, 405, 411, 415, 501})
_NUM_ANSWERS: Final = 3
"""Answers that may lack items before the search counts as failed."""


class _OtherCollectionError(Exception):
    """All items of an answer are of other collections than the one asked for."""


@dataclass(frozen=True, kw_only=True)
class FoundItem:
    """One feature of an answer; nothing about it is checked."""

    item: Any
    """Parsed JSON."""
    page_url: str
    """Address of the page, to which an item without an address of its own is relative."""


@dataclass(frozen=True, kw_only=True)
class _Query:
    """What a search asks for."""

    collection: str
    bounds_lonlat: Bounds
    interval: Interval | None
    max_items: int | None
    """Items after which the search ends; None for all."""

    def is_other(self, item: Any) -> bool:
        """Return whether an item is of another collection."""
        return is_of_other_collection(item, self.collection)

    def halves(self) -> list[_Query]:
        """Return queries of the western and the eastern half of the area."""
        west, south, east, north = self.bounds_lonlat
        middle = (west + east) / 2 if west <= east else 180.0
        boxes = (
            (west, south, middle, north),
            (middle if west <= east else -180.0, south, east, north),
        )
        return [replace(self, bounds_lonlat=box) for box in boxes]


@dataclass(kw_only=True)
class _Answer:
    """Items of the pages so far."""

    items: dict[str, FoundItem] = field(default_factory=dict)
    """Distinct items; one that comes with several contents is there with each."""
    ids: set[str] = field(default_factory=set)
    """Identifiers of the items; of one without, its content."""
    num_stated: int | None = None

    def add(self, features: Sequence[Any], url: str) -> set[str]:
        """Add the features of a page; return the identifiers of those that are new."""
        new = set()
        for feature in features:
            content = json.dumps(feature, sort_keys=True)
            self.items.setdefault(content, FoundItem(item=feature, page_url=url))
            name = feature.get("id") if isinstance(feature, dict) else None
            # Pages that are given twice have other signatures in their hrefs.
            new.add(json.dumps([feature.get("collection"), name]) if name else content)
        new -= self.ids
        self.ids |= new
        return new

    end: str = ""
    """Reason to stop though the last page links to a further one; none where it does not."""

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
        query = _Query(
            collection=collection, bounds_lonlat=bounds, interval=interval, max_items=max_items
        )
        settings = self._settings
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
        failures: list[ApiRequestError | _OtherCollectionError] = []
        for method in dict.fromkeys((self._method, "GET")):
            try:
                answer = self._by_any_size(query, method)
            except _OtherCollectionError as error:
                failures.append(error)
            except ApiRequestError as error:
                failures.append(error)
                is_over = self._client.deadline.remaining_s() <= 0
                if is_over or error.status not in _POST_REFUSED | TOO_SLOW:
                    break
            else:
                if method != self._method:
                    log.info("catalog %s is searched by %s from now on", self._name, method)
                self._method = method
                return answer
        raise failures[0]

    def _by_any_size(self, query: _Query, method: str) -> _Answer:
        """Search with pages of ever fewer items while their size may be what is refused."""
        size = self._page_items
        while True:
            try:
                answer = self._whole_answer(query, method, size)
            except ApiRequestError as failure:
                is_slow = failure.status in TOO_SLOW and size > _MIN_SLOW_ITEMS
                is_over = self._client.deadline.remaining_s() <= 0
                if is_over or size == 1 or not (is_slow or failure.status in _SIZE_REFUSED):
                    raise
                size //= 2
            else:
                self._page_items = size
                return answer

    def _whole_answer(self, query: _Query, method: str, size: int) -> _Answer:
        """Search, and prove an answer that may lack items by searches of both halves of the area.

        A count may be an estimate that no answer ever reaches. An answer that was cut short shows by
        items of a half that it does not have.

        Raises:
            ApiRequestError: every answer lacks items.
        """
        for _ in range(_NUM_ANSWERS):
            answer = self._pages(query, method, size)
            _check_collections(query, answer)
            if query.max_items is not None or not answer.is_doubtful:
                return answer
            halves = [self._pages(half, method, size) for half in query.halves()]
            if all(half.ids <= answer.ids for half in halves):
                log.warning(
                    "catalog %s: %s; searches of both halves of the area gave no others",
                    *(self._name, answer),
                )
                return answer
        raise ApiRequestError(f"{answer}, and a search of half the area gives others")

    def _pages(self, query: _Query, method: str, size: int) -> _Answer:
        """Collect the items of all pages."""
        first = request = self._first_request(query, method, size)
        seen, answer, num_barren = {request.key}, _Answer(), 0
        for _ in range(MAX_PAGES):
            response = self._client.ask(request, is_large=size > _MIN_SLOW_ITEMS)
            page = json.loads(response.body)
            features = page["features"]
            if not isinstance(features, list):
                raise TypeError("an answer has no list of features")
            new = answer.add(features, response.url)
            num_barren = 0 if new else num_barren + 1
            # A search that is repeated makes no progress until it comes to other items.
            if new - self._known_ids:
                self._client.deadline.restart()
            self._known_ids |= new
            answer.num_stated = _larger(answer.num_stated, _stated(page))
            if query.max_items is not None and _num_wanted(query, answer) >= query.max_items:
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


def _num_wanted(query: _Query, answer: _Answer) -> int:
    return sum(not query.is_other(found.item) for found in answer.items.values())


def _check_collections(query: _Query, answer: _Answer) -> None:
    items = [found.item for found in answer.items.values() if isinstance(found.item, dict)]
    others = [item for item in items if query.is_other(item)]
    if others and len(others) == len(items):
        names = sorted({str(item.get("collection"))[:60] for item in others})
        raise _OtherCollectionError(
            f"{len(others)} items of other collections ({', '.join(names[:3])}) and none of its own"
        )
