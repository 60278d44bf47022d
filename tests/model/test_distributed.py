"""Which of how many processes this is, from what torchrun and Slurm leave in the environment."""

from __future__ import annotations

import pytest

from salibi_data.store.errors import UsageError
from salibi_model.distributed import Launch, read_launch

BATCH_SCRIPT = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
"""What Slurm sets for a batch script; a shell of ``salloc`` has less."""
TASK = {**BATCH_SCRIPT, "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"}
MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}


@pytest.fixture
def environment(monkeypatch):
    """Sets these variables, and none that would have a say besides."""

    def set_to(variables):
        for name in (*TORCHRUN, *MEETING, *TASK):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Launch()),
        (TORCHRUN, Launch(rank=3, local_rank=1, world_size=4)),
        ({"WORLD_SIZE": "1"}, Launch()),
        (BATCH_SCRIPT, Launch()),
        ({**BATCH_SCRIPT, **MEETING}, Launch()),
        ({**TASK, **MEETING}, Launch(rank=5, local_rank=1, world_size=8)),
        ({**TASK, **MEETING, **TORCHRUN}, Launch(rank=3, local_rank=1, world_size=4)),
        ({**TASK, "WORLD_SIZE": "1"}, Launch()),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "1"}, Launch()),
    ],
)
def test_launches_are_told_apart(environment, variables, expected):
    environment(variables)
    assert read_launch() == expected


@pytest.mark.parametrize("lacking", ["MASTER_ADDR", "MASTER_PORT"])
def test_tasks_that_do_not_know_of_each_other_would_overwrite_one_run(environment, lacking):
    environment({name: value for name, value in {**TASK, **MEETING}.items() if name != lacking})
    with pytest.raises(UsageError, match=r"srun started 8 tasks.*MASTER_ADDR.*WORLD_SIZE=1"):
        read_launch()


def test_a_number_that_is_none_is_refused(environment):
    environment({**TORCHRUN, "RANK": "first"})
    with pytest.raises(UsageError, match="RANK is 'first'"):
        read_launch()
