"""The tests that docs/originals.md names exist."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


def test_every_mistake_of_the_originals_has_tests_that_exist():
    rows = re.findall(
        r"^\| (\d+) \|(.*)\|$", (ROOT / "docs/originals.md").read_text(), re.MULTILINE
    )
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    for number, row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, number
        for file, test in named:
            (path,) = (ROOT / "tests").rglob(file)
            text = path.read_text()
            assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"
