"""A Slurm cluster of one node on 127.0.0.1, started by hand: no cgroups, no accounting, no root.

https://slurm.schedmd.com/slurm.conf.html
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.services.processes import free_port, server

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue")
SBIN = "/usr/sbin"
"""Folder of daemons on Debian, which may be missing from PATH."""
_TIMEOUT_S = 60
_CONFIGURATION = """
ClusterName=salibi
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def _program(name: str) -> str:
    program = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), SBIN]))
    if program is None:
        pytest.skip(f"{name} is not installed; run `make test-integration`")
    return program


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """A cluster of four CPUs; yields the environment in which ``sbatch`` finds it."""
    programs = {name: _program(name) for name in PROGRAMS}
    with tempfile.TemporaryDirectory(prefix="salibi-slurm-") as name, ExitStack() as running:
        folder = Path(name)
        folder.chmod(0o755)  # munge refuses a socket that not everybody can reach
        environment = {"SLURM_CONF": str(_configure(folder))}
        running.enter_context(_munge(programs["munged"], folder))
        for daemon, arguments in (("slurmctld", ["-D", "-i"]), ("slurmd", ["-D", "-N", "node"])):
            running.enter_context(
                server(
                    [programs[daemon], *arguments],
                    log=folder / f"{daemon}.log",
                    ready=lambda: True,
                    env=environment,
                )
            )
        _wait_until(lambda: "idle" in _ask("sinfo", "%T", environment), folder)
        try:
            yield environment
        finally:
            _cancel_all(environment, folder)


def _configure(folder: Path) -> Path:
    path = folder / "slurm.conf"
    path.write_text(
        _CONFIGURATION.format(
            host=os.uname().nodename.partition(".")[0],
            node="node",
            user=getpass.getuser(),
            folder=folder,
            controller_port=free_port(),
            node_port=free_port(),
        )
    )
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    return path


@contextmanager
def _munge(program: str, folder: Path) -> Iterator[None]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{suffix}" for option, suffix in files.items()]
    with server(
        # Forced, for it distrusts the folder for temporary files, which everybody can write to.
        [program, "--foreground", "--force", f"--key-file={key}", *options],
        log=folder / "munged.log",
        ready=(folder / "munge.socket").exists,
    ):
        yield


def _cancel_all(environment: dict[str, str], folder: Path) -> None:
    """End all jobs: their processes are not the daemons' own and would outlive them."""
    command = [_program("scancel"), "--full", "--quiet", f"--user={getpass.getuser()}"]
    subprocess.run(command, env={**os.environ, **environment}, check=False, timeout=30)
    _wait_until(lambda: not _ask("squeue", "%i", environment), folder)


def _ask(program: str, columns: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        [_program(program), "--noheader", f"--format={columns}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    ).stdout.strip()


def _wait_until(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("slurm*.log"))
            raise RuntimeError(f"Slurm did not get there in {_TIMEOUT_S} s:\n{logs}")
        time.sleep(0.3)
