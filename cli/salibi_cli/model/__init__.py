"""The command salibi-model."""

from salibi_cli.model.app import main as main
