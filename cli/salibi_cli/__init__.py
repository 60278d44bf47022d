"""The commands ``salibi-data`` and ``salibi-model``: parse, call one function, render."""
