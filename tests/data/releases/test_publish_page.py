"""The commands of docs/publishing.md, run in order, with a folder in place of the bucket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.data import samples
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_commands_of_the_page_run(micro_store: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/publishing.md").read_text()
    block = re.search(r"```\n(.*?)```", page, re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.startswith("salibi-data ")]
    assert {line.split()[1] for line in lines} == {"publish", "verify", "pull"}
    places = {
        "s3://bucket/micro": f"file://{tmp_path}/micro",
        "data/micro.zarr": str(micro_store),
        "data/part.zarr": str(tmp_path / "part.zarr"),
        "data/pulled.zarr": str(tmp_path / "pulled.zarr"),
    }
    for line in lines:
        arguments = [places.get(word, word) for word in line.split()[1:]]
        done = samples.run(*arguments)
        assert done.returncode == 0, done.stderr
    assert samples.tree(tmp_path / "pulled.zarr") == samples.tree(micro_store)
    without_us = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert without_us is not None
    names: dict[str, Any] = {}
    exec(without_us[1].replace("s3://bucket", f"file://{tmp_path}"), names)  # noqa: S102
    assert names["group"]["tile"].shape[0] == names["latest"]["samples"]
