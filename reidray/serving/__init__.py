"""A model and a gallery over HTTP, and the page to search by dropping photos.

`engine` embeds and searches for many clients at once, `batching` makes batches of what they ask for, `uploads` reads
what they send, `guard` is what every request passes, `app` is the routes, `server` listens. None of them knows Ray:
`reidray.actors.serve_app` has an engine whose work is done by replicas.
"""

from reidray.serving.app import make_app
from reidray.serving.engine import Engine, LocalEngine, Upload, Wanted

__all__ = ["Engine", "LocalEngine", "Upload", "Wanted", "make_app"]
