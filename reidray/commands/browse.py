"""Open a gallery in the browser: drop a photo on the page, see who is most like it, filter by camera. The same
addresses serve programs: POST /embed and POST /search (docs/serving.md).

It answers on this machine only, and only to those who have the token: the address that it prints holds it. With
--replicas N or --serve the work is done by replicas on Ray Serve, each with its own copy of the model; a replica that
dies is started again, and what was asked of it is asked of another one.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from reidray.command import parse
from reidray.gallery import Gallery
from reidray.gallery.file import GalleryFile
from reidray.inference import Model, load

if TYPE_CHECKING:
    from reidray.serving import Engine

_NEEDED = ("starlette", "uvicorn", "python_multipart", "prometheus_client")

_CAUTION = (
    "caution: {} can be reached from other machines, and what is sent is not encrypted: put it behind a proxy with "
    "TLS, or leave --host out and use an ssh tunnel"
)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--gallery", metavar="FILE.parquet", type=Path, required=True, help="written by reidray embed")
    parser.add_argument("--run", metavar="DIR", type=Path, help="run folder or checkpoint (default: the gallery's)")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="port (8000); 0 takes a free one")
    parser.add_argument(
        "--host", metavar="ADDRESS", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)"
    )
    parser.add_argument(
        "--token", metavar="T", help="what clients must send (default: REIDRAY_SERVE_TOKEN, or a new one is made)"
    )
    parser.add_argument("--replicas", metavar="N", type=int, default=1, help="replicas on Ray Serve (1: no Ray)")
    parser.add_argument("--serve", action="store_true", help="use Ray Serve for one replica too")


def main(words: Sequence[str], prog: str) -> None:
    """The command."""
    options = parse(words, prog=prog, description=__doc__, extra=_options, settings=False).options
    if options.replicas < 1:
        raise ValueError(f"--replicas must be at least 1, got {options.replicas}")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ValueError(
            f"{prog} needs packages that are not here ({', '.join(missing)}): pip install 'reidray[serve]'"
        )
    from reidray.serving import make_app
    from reidray.serving.server import chosen_token, is_local, listening, serve

    token = chosen_token(options.token)
    place = options.run or Path(GalleryFile(options.gallery).made.run)
    if not place.is_dir():
        raise ValueError(f"{options.gallery} was made by the run {place}, which is gone: give it with --run DIR")
    with listening(options.host, options.port) as own:
        # uvicorn may have taken the Ctrl-C for itself
        with suppress(KeyboardInterrupt), _engine(options, place) as (engine, model, gallery):
            port = own.getsockname()[1]
            app = make_app(engine, gallery, model.settings, token=token, cookie=f"reidray_{port}")
            if not is_local(options.host):
                print(_CAUTION.format(options.host), file=sys.stderr)
            print(
                f"open http://{_shown(options.host)}:{port}/?token={quote(token, safe='')}   (Ctrl-C ends it)",
                flush=True,
            )
            serve(app, own)
        print("stopped", file=sys.stderr)


@contextmanager
def _engine(options: Namespace, place: Path) -> Iterator[tuple[Engine, Model, Gallery]]:
    """Who does the work: this process, or replicas."""
    model = load(place)
    gallery = Gallery(options.gallery, model)
    if options.replicas > 1 or options.serve:
        from reidray.actors.serve_app import replicas

        name = f"reidray-{os.getpid()}"
        with replicas(place.resolve(), options.gallery.resolve(), options.replicas, name=name) as engine:
            yield engine, model, gallery
    else:
        from reidray.serving import LocalEngine

        local = LocalEngine(model, gallery)
        local.warm()
        yield local, model, gallery
        local.close()


def _shown(host: str) -> str:
    """An address that a browser on this machine takes."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not listened on)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
