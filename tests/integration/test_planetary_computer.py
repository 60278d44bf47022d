"""The built-in ``planetary-computer`` catalog and the unmodified SDK, against real signatures.

Their hosts lead to local servers through HTTPS_PROXY; see ``proxy.py``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import shapely
from shapely.geometry import shape

from tests.support.data import samples
from tests.support.services.azurite import CONTAINERS
from tests.support.services.proxy import ISSUER_PATH, PORTAL

if TYPE_CHECKING:
    from salibi_data.store.tiles import Bounds
    from tests.support.services.proxy import PlanetaryComputer

pytestmark = pytest.mark.integration

LIFE_S = 20
ASK_EVERY_S = 15
NUM_FILES = 10
"""A build writes more."""
SIGNATURE = re.compile(rb"sig=[A-Za-z0-9%+/=]{20,}")


def any_href(provider: PlanetaryComputer) -> str:
    item = next(item for item in provider.items if item["collection"] == "naip")
    return str(item["assets"]["image"]["href"])


def get(provider: PlanetaryComputer, url: str, **headers: str) -> requests.Response:
    return requests.get(
        url,
        headers=headers,
        proxies={"https": provider.environment()["HTTPS_PROXY"]},
        verify=str(provider.authority),
        timeout=30,
    )


def test_only_a_valid_signature_opens_a_blob(provider: PlanetaryComputer) -> None:
    href = any_href(provider)
    token, _ = provider.storage.token(CONTAINERS["naip"], timedelta(minutes=5))
    other, _ = provider.storage.token(CONTAINERS["sentinel-2-l2a"], timedelta(minutes=5))
    assert get(provider, href).status_code == 403
    assert get(provider, f"{href}?{tampered(token)}").status_code == 403
    assert get(provider, f"{href}?{other}").status_code == 403
    answer = get(provider, f"{href}?{token}", Range="bytes=0-15")
    assert answer.status_code == 206
    assert answer.content[:2] in {b"II", b"MM"}  # a TIFF
    assert len(answer.content) == 16


def test_a_signature_ends(provider: PlanetaryComputer) -> None:
    token, expiry = provider.storage.token(CONTAINERS["naip"], timedelta(seconds=2))
    signed = f"{any_href(provider)}?{token}"
    assert get(provider, signed).status_code == 200
    time.sleep(max(0.0, expiry.timestamp() - time.time()) + 1.5)
    assert get(provider, signed).status_code == 403


def tampered(token: str) -> str:
    """The token with a later end, as one would write it who has not the key."""
    changed = re.sub(r"se=20\d\d", "se=2099", token)
    assert changed != token
    return changed


OPEN_WITH_THE_SDK = """
import json, sys
import planetary_computer, rasterio

href = sys.argv[1]
try:
    rasterio.open(href).close()
except rasterio.errors.RasterioIOError as error:
    refused = "403" in str(error)
with rasterio.open(planetary_computer.sign_url(href)) as dataset:
    checksums = [dataset.checksum(band) for band in dataset.indexes]
print(json.dumps({"refused": refused, "checksums": checksums}))
"""


def test_the_sdk_and_gdal_work_unmodified(
    provider: PlanetaryComputer, sample_catalog: Path
) -> None:
    import rasterio

    href = any_href(provider)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITH_THE_SDK, href],
        env={**os.environ, **provider.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    output = json.loads(done.stdout)
    with rasterio.open(sample_catalog / href.split("/", 4)[4]) as dataset:
        assert output["checksums"] == [dataset.checksum(band) for band in dataset.indexes]
    assert output["refused"]
    assert len(provider.issued) == 1


@pytest.fixture(scope="module")
def bounds(sample_catalog: Path) -> Bounds:
    """Bounds of NAIP in the sample catalog."""
    paths = (sample_catalog / "naip").rglob("*.json")
    documents = [json.loads(path.read_text()) for path in paths]
    quads = [shape(document["geometry"]) for document in documents if document["type"] == "Feature"]
    return tuple(shapely.total_bounds(quads).tolist())


@pytest.fixture(scope="module")
def local_store(sample_toml: str, bounds: Bounds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that the same items give when they are read from disk."""
    from salibi_data.builds.build import build

    store = tmp_path_factory.mktemp("local") / "micro.zarr"
    build(store, variant="micro", catalog=sample_toml, bounds_lonlat=bounds)
    return store


@pytest.mark.parametrize("workers", [1, 3])
def test_a_build_outlives_its_tokens(
    provider: PlanetaryComputer, bounds: Bounds, local_store: Path, tmp_path: Path, workers: int
) -> None:
    provider.life = timedelta(seconds=LIFE_S)
    provider.latency_s = 1.1 * workers  # slow enough for several lives
    began_s = time.monotonic()
    done = run_build(provider, tmp_path, bounds, workers)
    took_s = time.monotonic() - began_s
    assert done.returncode == 0, done.stderr.decode()
    assert provider.refused == []

    assert array_bytes(tmp_path / "out" / "micro.zarr") == array_bytes(local_store)

    assert took_s > 3 * LIFE_S
    assert_asked_seldom(provider, began_s, at_least=3)
    assert_no_secrets(provider, tmp_path, done.stdout + done.stderr)


def test_a_token_that_ends_early_is_renewed(
    provider: PlanetaryComputer, bounds: Bounds, local_store: Path, tmp_path: Path
) -> None:
    """A token is refused before the time it promised: asked for again, and nothing is lost."""
    provider.promise = timedelta(hours=1)
    provider.life = timedelta(seconds=LIFE_S)
    provider.latency_s = 1.1
    began_s = time.monotonic()
    done = run_build(provider, tmp_path, bounds, workers=2)
    assert done.returncode == 0, done.stderr.decode()
    assert provider.statuses[403] > 0
    assert array_bytes(tmp_path / "out" / "micro.zarr") == array_bytes(local_store)
    assert_asked_seldom(provider, began_s, at_least=2)
    assert_no_secrets(provider, tmp_path, done.stdout + done.stderr)


def test_a_secret_would_be_found(provider: PlanetaryComputer, tmp_path: Path) -> None:
    """The search for secrets that the other tests end with does find what is there."""
    assert get(provider, f"https://{PORTAL}{ISSUER_PATH}/{CONTAINERS['naip']}").ok
    (secret,) = (token.token for token in provider.issued)
    quiet = pa.table({"href": ["https://example.com/a.tif"] * 9})
    loud = pa.table(
        {"href": ["https://example.com/a.tif"] * 8 + [f"https://example.com/?{secret}"]}
    )
    for number in range(NUM_FILES):
        pq.write_table(quiet, tmp_path / f"{number}.parquet", compression="zstd")
    assert_no_secrets(provider, tmp_path, b"all is well")
    with pytest.raises(AssertionError, match="printed"):
        assert_no_secrets(provider, tmp_path, f"GET ?{secret}".encode())
    pq.write_table(loud, tmp_path / "0.parquet", compression="zstd")
    with pytest.raises(AssertionError, match=r"0\.parquet"):
        assert_no_secrets(provider, tmp_path, b"all is well")


def run_build(
    provider: PlanetaryComputer, folder: Path, bounds: Bounds, workers: int
) -> subprocess.CompletedProcess[bytes]:
    """The command as a user types it; everything it writes anywhere is below ``folder``."""
    homes = {}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "SALIBI_CACHE"):
        homes[name] = str(folder / name.lower())
        Path(homes[name]).mkdir()
    arguments = ["build", "--variant", "micro", "--workers", str(workers)]
    arguments += [f"--bbox={','.join(map(str, bounds))}", "-o", str(folder / "out" / "micro.zarr")]
    return subprocess.run(
        samples.command(*arguments),
        env={**samples.environment(), **provider.environment(), **homes},
        capture_output=True,
        timeout=600,
        check=False,
    )


def array_bytes(store: Path) -> dict[str, str]:
    """Digests of all shards: the table beside them names hrefs, which differ."""
    digests = {name: digest for name, digest in samples.tree(store).items() if "/c/" in name}
    assert len(digests) > 5
    return digests


def assert_asked_seldom(provider: PlanetaryComputer, began_s: float, *, at_least: int) -> None:
    counts = Counter(token.container for token in provider.issued)
    assert set(counts) == set(CONTAINERS.values())
    for container, count in counts.items():
        last_s = max(token.at_s for token in provider.issued if token.container == container)
        assert count <= 1 + (last_s - began_s) / ASK_EVERY_S, (container, count)
    assert max(counts.values()) >= at_least  # they did end in the middle


def assert_no_secrets(provider: PlanetaryComputer, folder: Path, output: bytes) -> None:
    """Neither a token, nor its signature, nor an account's key is in what was written or said."""
    signatures = [parse_qs(issued.token)["sig"][0] for issued in provider.issued]
    quoted = [quote(signature, safe="") for signature in signatures]
    tokens = [issued.token for issued in provider.issued]
    secrets = [*signatures, *quoted, *tokens, *provider.storage.keys.values()]
    texts = {"what was printed": output}
    for path in folder.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes()
            if path.suffix == ".parquet":  # compressed: its bytes would hide it
                table = pq.read_table(path)
                texts[f"{path}, read"] = repr([table.schema.metadata, table.to_pylist()]).encode()
    assert len(texts) > NUM_FILES
    for name, content in texts.items():
        assert not SIGNATURE.search(content), name
        assert not any(secret.encode() in content for secret in secrets), name
