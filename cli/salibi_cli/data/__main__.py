"""``python -m salibi_cli.data``: the command salibi-data."""

from salibi_cli.data.app import main

main()
