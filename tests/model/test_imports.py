"""What importing the model half pulls in."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

LIST_IMPORTS = """
import importlib, pkgutil, sys
import salibi_model
for module in pkgutil.walk_packages(salibi_model.__path__, "salibi_model."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (module.name, error.name) != ("salibi_model.exports.torchgeo_bench", "torchgeo_bench"):
            raise
print("\\n".join(name for name in sys.modules if name.split(".")[0] == "salibi_data"))
"""
HEAVY = """
import sys
import salibi_cli.model.app
print("\\n".join(name for name in ("torch", "zarr", "numpy") if name in sys.modules))
"""


def output_of(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_model_half_imports_only_the_store_of_the_data_half():
    imported = output_of(LIST_IMPORTS) - {"salibi_data", "salibi_data.store"}
    assert {name for name in imported if not name.startswith("salibi_data.store.")} == set()


def test_the_command_starts_without_heavy_libraries():
    assert output_of(HEAVY) == set()
