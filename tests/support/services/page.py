"""The page of a store in a real browser."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip("playwright.sync_api")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


COUNT = 20_000


DESKTOP, PHONE = (1280, 800), (390, 844)


QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-precise-memory-info",
]


@contextmanager
def served(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(browser, url, hash_="", *, size=DESKTOP, **options):
    """The page, ready; when it is closed, nothing may have failed or left this machine."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    requested, wrong = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: answer.status < 400 or wrong.append(answer.url))
    page.on("console", lambda message: message.type != "error" or wrong.append(message.text))
    page.goto(f"{url}?inspect{hash_}")
    page.wait_for_selector("html[data-ready]", state="attached")
    try:
        yield page
        assert not [
            address for address in requested if not address.startswith((url, "blob:", "data:"))
        ]
        assert not wrong
    finally:
        context.close()


def state(page):
    return page.evaluate(
        "() => { const { at, ...rest } = salibi.state; return JSON.parse(JSON.stringify(rest)); }"
    )


def colour_of(page, name):
    text = page.evaluate(
        "name => getComputedStyle(document.documentElement).getPropertyValue(name)", name
    )
    return [int(text.strip()[i : i + 2], 16) for i in (1, 3, 5)]
