"""A served page and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import threading
from typing import TYPE_CHECKING

from salibi_data.viewer.server import Server
from tests.support.data.many_samples import ZOOM

if TYPE_CHECKING:
    from salibi_data.viewer.site import Site

COUNT = 150


@contextlib.contextmanager
def serving(site: Site):
    """A function that asks a running server: (path, headers, method) to (status, headers, body)."""
    with Server(site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(path, headers=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
            try:
                connection.request(method, path, headers={"Connection": "close", **(headers or {})})
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


def tile_path(site, position, modality="lores", levels=0):
    x, y = int(site.samples.x[position]) >> levels, int(site.samples.y[position]) >> levels
    return f"/tiles/{modality}/{ZOOM - levels}/{x}/{y}.webp"
