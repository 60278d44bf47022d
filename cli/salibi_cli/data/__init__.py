"""The command salibi-data."""

from salibi_cli.data.app import main as main
