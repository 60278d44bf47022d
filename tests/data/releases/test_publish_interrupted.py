"""Publications that are killed, or whose bucket or disk is full: readers see whole releases only."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.store.errors import StoreError
from salibi_data.store.open import StoreFiles
from tests.support.data import samples
from tests.support.data.published_stores import BUCKET, assert_one_line, objects
from tests.support.model.weights.published import another
from tests.support.services.buckets import S3, Gate
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("full", "words"),
    [
        (True, "it is full"),
        pytest.param(False, "the connection was lost", marks=pytest.mark.slow),
    ],
)
def test_a_bucket_that_is_full_or_lost_in_the_middle(
    s3: S3,
    some_store: Path,
    newer: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
    words: str,
) -> None:
    url = f"s3://{BUCKET}/through-{full}"
    publish(some_store, url)
    with serve(Gate(endpoint=s3.endpoint, writes=5, full=full)) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gate.url)
        with pytest.raises(StoreError) as caught:
            publish(newer, url)
        assert_one_line(caught, s3, words, "run the same command again")
        assert StoreFiles.at(url).manifest() == StoreFiles.at(some_store).manifest()
        gate.writes = None
        done = publish(newer, url)
    s3.environment(monkeypatch)
    assert 0 < done.files_sent < done.files
    assert StoreFiles.at(url).manifest() == StoreFiles.at(newer).manifest()
    verify(url)


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from salibi_cli.data.app import main
main()
"""


def test_a_full_disk_is_one_line(some_store: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/published"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "publish", str(some_store), url],
        env=samples.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "it is full" in done.stderr
    assert not (tmp_path / "published/latest.json").exists()
    publish(some_store, url)
    verify(url)


@dataclass
class Watcher:
    """A reader that opens the dataset again and again; whatever it finds must be whole."""

    url: str
    whole: tuple[str, ...]
    """Checksums of the manifests that there may be."""
    seen: int = 0
    wrong: str = ""
    done: bool = False

    def watch(self) -> None:
        while not self.done and not self.wrong:
            try:
                self.look()
            except StoreError as error:
                if self.seen or "is not a Salibi store" not in str(error):
                    self.wrong = str(error)

    def look(self) -> None:
        files = StoreFiles.at(self.url)
        assert files.release is not None
        if files.release.manifest_sha256 not in self.whole:
            self.wrong = f"unknown release {files.release}"
        sizes = files.sizes()
        lacking = [n for n, e in files.manifest().items() if sizes.get(n) != e.bytes]
        if lacking:
            self.wrong = f"{lacking} are not there"
        self.seen += 1


def test_killed_in_the_middle_readers_see_whole_releases(
    url: str, some_store: Path, newer: Path
) -> None:
    drill(url, some_store, newer, num_kills=1)


@pytest.mark.slow
def test_killed_at_many_moments_readers_see_whole_releases(
    url: str, some_store: Path, newer: Path
) -> None:
    drill(url, some_store, newer, num_kills=8)


def drill(url: str, some_store: Path, newer: Path, *, num_kills: int) -> None:
    """SIGKILL when a random number of objects is there; then the same command ends the work."""
    rng = random.Random(13)
    kills = 0
    wanted = [another(some_store, newer.with_name("killed.zarr"), software_version="12"), newer]
    manifests = tuple(
        hashlib.sha256((s / "manifest.json").read_bytes()).hexdigest() for s in wanted
    )
    watcher = Watcher(url=url, whole=manifests)
    thread = threading.Thread(target=watcher.watch)
    thread.start()
    try:
        for store in wanted:
            already = len(objects(url))
            total = len(samples.tree(store))
            for limit in sorted(rng.sample(range(1, total), num_kills)):
                kills += kill_when(already + limit, store, url)
            publish(store, url)
            verify(url)
            assert StoreFiles.at(url).manifest() == StoreFiles.at(store).manifest()
    finally:
        watcher.done = True
        thread.join()
    assert not watcher.wrong
    assert watcher.seen
    assert kills


def kill_when(num_objects: int, store: Path, url: str) -> int:
    """Publish in a process of its own, and kill it at so many objects; 1 if it had not ended."""
    process = subprocess.Popen(
        samples.command("publish", str(store), url, "--workers", "2"),
        env=samples.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while (
        process.poll() is None and len(objects(url)) < num_objects and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return int(alive)
