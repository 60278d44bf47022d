"""A finished run, and a copy of it to be damaged."""

from __future__ import annotations

import shutil

import pytest

from salibi_model.models import config as model_config
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE
from tests.support.once import made_once


@pytest.fixture(scope="session")
def finished(small_store, tmp_path_factory):
    """A run of three steps; read only."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(model_config.SIZES, "tiny", SIZE)
            config = TrainingConfig(
                stores=(str(small_store),),
                steps=3,
                batch_size=4,
                checkpoint_every=1,
                validate_every=3,
            )
            train(config, out=folder / "run")

    return made_once(tmp_path_factory, "finished", make) / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it with its newest checkpoint alone, to be damaged."""
    copy = shutil.copytree(finished, tmp_path / "run")
    for older in sorted((copy / "checkpoints").iterdir())[:-1]:
        older.unlink()
    return copy
