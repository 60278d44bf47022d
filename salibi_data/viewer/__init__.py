"""Shows a store in the browser: a page with a map, images and filters, served or exported.

``samples`` reads the store, ``tiles`` draws its images, ``basemap`` opens the map below them, and
``site`` gives every file of the page by its path, for ``server`` to serve or ``export`` to write.
"""
