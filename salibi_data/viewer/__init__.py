"""The page a store is looked at with: its files, the server that gives them, the same on disk.

``samples`` says what the page knows of every sample, ``pictures`` draws tiles, ``basemap`` lies
below them, ``site`` is all of it by path; ``server`` and ``export`` give out the same site.
"""
