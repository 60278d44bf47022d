"""Trackers as they are: W&B's own process, offline; MLflow's own client and file store."""

from __future__ import annotations

import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import RunFolder
from salibi_model.training.tracking import mlflow as mlflow_tracker
from salibi_model.training.tracking.metrics_log import MetricsLog, read_metrics
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.integration

SECRET = "sig-of-nobody"  # noqa: S105 - to be looked for
CONFIG = {"size": "tiny", "steps": 5, "stores": [f"https://me:{SECRET}@a.org/x.zarr?{SECRET}"]}
PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
LEVELDB_BLOCK = 32768

# Logs the steps of the command line after the run's folder; with `kill`, W&B's process dies first.
LOG_WITH_WANDB = """
import os, signal, subprocess, sys
import numpy as np
from salibi_model.checkpoints.files import RunFolder
from salibi_data.store.errors import UsageError
from salibi_model.training.tracking.metrics_log import MetricsLog
folder, config, first, last, kill = sys.argv[1], *map(eval, sys.argv[2:6])
picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
try:
    log = MetricsLog(
        RunFolder(folder), first_step=first, trackers=["wandb"], config=config, run_name="first"
    )
except UsageError as error:
    sys.exit(f"refused: {error}")
for step in range(first, last + 1):
    if kill and step == last:
        table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
        rows = [line.split(None, 2) for line in table.stdout.splitlines()]
        own = [row for row in rows if row[1] == str(os.getpid()) and "wandb-core" in row[2]]
        os.kill(int(own[0][0]), signal.SIGKILL)
    log.write({"step": float(step), "loss": 1.0 / step})
    log.write_image("reconstruction", step, picture)
log.close()
"""


@pytest.fixture
def wandb_environment(tmp_path: Path) -> dict[str, str]:
    """Offline, and nothing of this machine's own settings."""
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")
    home = tmp_path / "home"
    home.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    folders = {"HOME": str(home), "NETRC": str(home / "netrc"), "XDG_CACHE_HOME": str(home)}
    path = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    quiet = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    return {**inherited, **folders, **quiet, "PYTHONPATH": path}


def log_with_wandb(
    environment: dict[str, str], run: Path, first: int, last: int, *, kill: bool = False
) -> subprocess.CompletedProcess[str]:
    run.mkdir(exist_ok=True)
    arguments = [str(run), repr(CONFIG), str(first), str(last), str(kill)]
    return subprocess.run(
        [sys.executable, "-c", LOG_WITH_WANDB, *arguments],
        env=environment,
        cwd=run.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_wandb_has_values_images_and_configuration(
    wandb_environment: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = log_with_wandb(wandb_environment, run, 1, 3)
    assert done.returncode == 0, done.stderr
    (records,) = offline_records(run)
    run_record = next(record.run for record in records if record.HasField("run"))
    assert (run_record.display_name, run_record.project) == ("first", "salibi")
    config = {entry.key: json.loads(entry.value_json) for entry in run_record.config.update}
    assert config["size"] == "tiny"
    assert config["stores"] == ["https://a.org/x.zarr"]
    rows = history(records)
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == [1.0, 0.5, 1 / 3]
    (media,) = run.glob("wandb/offline-run-*/files")
    for row in rows:
        np.testing.assert_array_equal(Image.open(media / row["reconstruction.path"]), PICTURE)


def test_wandb_goes_on_with_the_same_run(wandb_environment: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    for first, last in ((1, 3), (3, 5)):
        done = log_with_wandb(wandb_environment, run, first, last)
        assert done.returncode == 0, done.stderr
    parts = offline_records(run)
    identifiers = {record.run.run_id for record in chain(*parts) if record.HasField("run")}
    assert len(identifiers) == 1
    assert [[row["_step"] for row in history(part)] for part in parts] == [[1, 2, 3], [3, 4, 5]]
    assert [row["step"] for row in read_metrics(run / "metrics.csv")] == [1, 2, 3, 4, 5]


def test_wandb_is_told_no_secret(wandb_environment: dict[str, str], tmp_path: Path) -> None:
    """Neither of the configuration, nor of the command line, nor of the environment."""
    secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "WANDB_API_KEY": SECRET.ljust(40, "x")}
    run = tmp_path / "run"
    done = log_with_wandb({**wandb_environment, **secrets}, run, 1, 2)
    assert done.returncode == 0, done.stderr
    written = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert len(written) > 5
    assert [path for path, content in written.items() if SECRET.encode() in content] == []
    assert SECRET not in repr(offline_records(run)) + done.stdout + done.stderr


def test_a_server_that_refuses_leaves_the_run_on_disk(
    wandb_environment: dict[str, str], refusing_server: str, tmp_path: Path
) -> None:
    online = {"WANDB_MODE": "online", "WANDB_BASE_URL": refusing_server, "WANDB_API_KEY": "x" * 40}
    run = tmp_path / "run"
    done = log_with_wandb({**wandb_environment, **online}, run, 1, 3)
    assert done.returncode == 0, done.stderr
    assert "W&B cannot be reached" in done.stderr
    (records,) = offline_records(run)
    assert [row["_step"] for row in history(records)] == [1, 2, 3]


def test_training_outlives_wandb(wandb_environment: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = log_with_wandb(wandb_environment, run, 1, 3, kill=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training goes on without it") == 1
    assert [row["step"] for row in read_metrics(run / "metrics.csv")] == [1, 2, 3]
    again = log_with_wandb(wandb_environment, run, 3, 4)
    assert again.returncode == 0, again.stderr
    assert [row["_step"] for row in history(offline_records(run)[-1])] == [3, 4]


def test_without_a_login_wandb_is_refused(
    wandb_environment: dict[str, str], refusing_server: str, tmp_path: Path
) -> None:
    online = {"WANDB_MODE": "online", "WANDB_BASE_URL": refusing_server}
    done = log_with_wandb({**wandb_environment, **online}, tmp_path / "run", 1, 3)
    assert "refused: W&B cannot begin" in done.stderr
    assert "`wandb login`" in done.stderr
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A server that lets nobody in."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_error(401)

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def offline_records(run: Path) -> list[list[Any]]:
    """All that W&B keeps of a run on disk, one list for each time it was started."""
    from wandb.proto import wandb_internal_pb2

    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    return [
        [wandb_internal_pb2.Record.FromString(content) for content in leveldb_records(file)]
        for file in files
    ]


def leveldb_records(file: Path) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, after W&B's seven bytes of its own.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    content, position, record = file.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while position < len(content):
        left = LEVELDB_BLOCK - position % LEVELDB_BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def history(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Logged values, a dictionary for each step; parts of a value as ``NAME.PART``."""
    return [
        {
            (entry.key or ".".join(entry.nested_key)): json.loads(entry.value_json)
            for entry in record.history.item
        }
        for record in records
        if record.HasField("history")
    ]


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store on disk that MLflow is told to use."""
    pytest.importorskip("mlflow", reason="pip install -e '.[mlflow]'")
    store = tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return store


def log_with_mlflow(run: Path, steps: Sequence[int]) -> None:
    run.mkdir(exist_ok=True)
    names = {"trackers": ["mlflow"], "run_name": "first"}
    opened = MetricsLog(RunFolder(run), first_step=steps[0], config=CONFIG, **names)
    with closing(opened) as log:
        for step in steps:
            log.write({"step": float(step), "loss": 1.0 / step})
        log.write_image("reconstruction", steps[-1], PICTURE)


def tracked_run() -> Any:
    """The one run of the store."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("salibi")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def tracked_history(name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    metrics = MlflowClient().get_metric_history(tracked_run().info.run_id, name)
    return [(metric.step, metric.value) for metric in metrics]


@pytest.mark.usefixtures("mlflow_store")
def test_mlflow_has_values_images_and_configuration(tmp_path: Path) -> None:
    log_with_mlflow(tmp_path / "run", [1, 2, 3])
    run = tracked_run()
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {
        "size": "tiny",
        "steps": "5",
        "stores": "['https://a.org/x.zarr']",
    }
    assert tracked_history("loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    artifacts = tmp_path / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"
    (image,) = artifacts.rglob("*.png")
    assert image.relative_to(artifacts).as_posix() == "samples/reconstruction-00000003.png"
    np.testing.assert_array_equal(Image.open(image), PICTURE)


@pytest.mark.usefixtures("mlflow_store")
def test_mlflow_has_each_step_of_a_run_that_went_on_once(tmp_path: Path) -> None:
    log_with_mlflow(tmp_path / "run", [1, 2, 3])
    log_with_mlflow(tmp_path / "run", [3, 4, 5])
    assert tracked_history("loss") == [(step, 1 / step) for step in range(1, 6)]
    assert tracked_history("step") == [(step, step) for step in range(1, 6)]
    assert tracked_run().info.status == "FINISHED"


def test_mlflow_gets_what_it_missed(
    mlflow_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is away while steps are logged, and comes back before the run ends."""
    aside = tmp_path / "aside"
    run = RunFolder(tmp_path)
    with closing(MetricsLog(run, first_step=1, trackers=["mlflow"])) as log:
        log.write({"step": 1.0, "loss": 1.0})
        wait_for(lambda: tracked_history("loss") == [(1, 1.0)])
        mlflow_store.rename(aside)
        mlflow_store.write_text("no folder")
        for step in range(2, 1300):  # more values than MLflow takes at once
            log.write({"step": float(step), "loss": 1.0})
        wait_for(lambda: "sent again later" in caplog.text)
        mlflow_store.unlink()
        aside.rename(mlflow_store)
    assert [step for step, _ in tracked_history("loss")] == list(range(1, 1300))
    assert tracked_run().info.status == "FINISHED"


def wait_for(condition: Any) -> None:
    ended = threading.Event()
    for _ in range(200):
        try:
            if condition():
                return
        except Exception:  # noqa: BLE001, S110 - the run is not there yet
            pass
        ended.wait(0.1)
    pytest.fail("it did not come to that in 20 s")


@pytest.mark.usefixtures("mlflow_store")
def test_a_server_that_is_away_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unheard:  # takes connections, and never answers
        unheard.bind(("127.0.0.1", 0))
        unheard.listen()
        port = unheard.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        monkeypatch.setattr(mlflow_tracker, "_CLOSE_S", 1)
        log_with_mlflow(tmp_path / "run", [1, 2, 3])
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [1, 2, 3]
    assert "MLflow lacks up to 4 steps and images" in caplog.text


@pytest.mark.usefixtures("mlflow_store")
@pytest.mark.parametrize(
    ("address", "message"),
    [("", "set MLFLOW_TRACKING_URI"), ("nowhere://x", "cannot use its tracking URI")],
)
def test_an_address_that_mlflow_cannot_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UsageError, match=message):
        MetricsLog(RunFolder(tmp_path), first_step=1, trackers=["mlflow"])
    assert not (tmp_path / "metrics.csv").exists()
