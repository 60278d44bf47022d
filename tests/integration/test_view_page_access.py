"""The page of a store by keys, names of controls, contrast and on a phone, in a real browser."""

from __future__ import annotations

import numpy as np
import pytest

from salibi_data.store.render_rgb import as_rgb
from salibi_data.viewer.samples import ViewedSamples
from salibi_data.viewer.server import Server
from salibi_data.viewer.site import Site
from tests.support.data.many_samples import write_many
from tests.support.services.page import (
    CHROMIUM,
    COUNT,
    PHONE,
    QUIET,
    colour_of,
    opened,
    served,
    state,
    sync_api,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium; install Debian's package of that name"
    ),
]


CONTRAST = 4.5
"""Least contrast of text, WCAG 2.2 criterion 1.4.3, level AA."""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_many(tmp_path_factory.mktemp("view") / "many.zarr", num_samples=COUNT)


@pytest.fixture(scope="module")
def url(store):
    with served(Server(Site(ViewedSamples(store), as_rgb))) as address:
        yield address


def test_everything_is_reached_by_keys(browser, url):
    with opened(browser, url) as page:
        press = page.keyboard.press
        press("j")
        assert state(page)["sample"] == 0
        press("ArrowRight")
        press("j")
        press("k")
        assert state(page)["sample"] == 1
        press("ArrowLeft")
        press("ArrowLeft")
        assert state(page)["sample"] == COUNT - 1  # around the end
        for number, name in enumerate(("sar", "lores", "hires", "hires_4x"), start=1):
            press(str(number))
            assert state(page)["modality"] == name
        press("9")
        assert state(page)["modality"] == "hires_4x"
        press("g")
        press("o")
        assert (state(page)["grid"], state(page)["opacity"]) == (False, 0)
        press("Escape")
        assert state(page)["sample"] == -1
        press("?")
        assert page.locator("#help").is_visible()
        press("Escape")
        assert page.locator("#help").is_hidden()
        press("/")
        press("Space")
        assert state(page)["filter"]["splits"] == [False, True, True, True]
        press("j")
        split = page.evaluate("salibi.store.column.split[salibi.state.sample]")
        assert split in (1, 2)


def test_every_control_has_a_name_and_takes_the_focus(browser, url):
    with opened(browser, url) as page:
        page.keyboard.press("j")
        unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, select, a[href]")]
          .filter((one) => one.offsetParent !== null)
          .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.title || one.labels?.length))
          .map((one) => one.outerHTML)""")
        assert unnamed == []
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
        assert {
            "cloud",
            "shift",
            "sensor",
            "from",
            "to",
            "browse",
            "modality",
            "opacity",
            "grid",
        } <= reached
        assert {"next", "previous", "close", "share", "help-button", "train"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(browser, url, scheme):
    def luminance(colour):
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    with opened(browser, url, color_scheme=scheme) as page:
        pairs = [(ink, on) for ink in ("--ink", "--quiet") for on in ("--paper", "--panel")]
        pairs += [(split, "--paper") for split in ("--train", "--validation", "--test")]
        for ink, ground in [*pairs, ("--on-accent", "--accent")]:
            low, high = sorted(luminance(colour_of(page, name)) for name in (ink, ground))
            assert (high + 0.05) / (low + 0.05) >= CONTRAST, (ink, ground)


def test_a_phone_shows_it_without_scrolling_aside(browser, url):
    with opened(browser, url, size=PHONE, has_touch=True, is_mobile=True) as page:

        def fits():
            wide = page.evaluate("""() => [...document.querySelectorAll("body *")].filter((one) => {
              const box = one.getBoundingClientRect();
              return box.width > 0 && one.offsetParent && (box.right > innerWidth + 1 || box.left < -1)
                && !one.closest(".maplibregl-canvas-container, .skip");
            }).map((one) => one.outerHTML.slice(0, 100))""")
            assert wide == []
            assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE[0]

        fits()
        assert page.locator("#cloud").is_hidden()
        page.tap("#fold")
        assert page.locator("#cloud").is_visible()
        fits()
        page.tap("#browse")
        page.wait_for_selector("#facts dl")
        fits()
        page.tap("#close")
        assert page.locator("#sheet").is_hidden()
