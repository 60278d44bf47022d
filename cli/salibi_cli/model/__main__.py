"""``python -m salibi_cli.model``, as torchrun starts it."""

from salibi_cli.model.app import main

main()
