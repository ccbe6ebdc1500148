"""A server for the tests of the service: a tiny network that nobody trained, real files, real HTTP."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import uvicorn
from PIL import Image

from reidray.config import Settings
from reidray.gallery import Gallery
from reidray.inference import Model
from reidray.serving import LocalEngine, make_app
from reidray.serving.server import listening
from reidray.training.loop import new_model

TOKEN = "a-token/of=the+tests&100%"
IN_URL = quote(TOKEN, safe="")


def tiny_model(place: Path) -> Model:
    """Start weights, no file of a run: what a server needs of a model."""
    settings = Settings.model_validate(
        {"data": {"height": 32, "width": 16}, "model": {"backbone": "small", "weights": "none", "bn_group_size": 16}}
    )
    return Model(new_model(settings), settings, str(place))


def picture(seed: int, *, size: tuple[int, int] = (24, 48), kind: str = "JPEG") -> bytes:
    """The bytes of a file: broad colours that differ from seed to seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 2, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(written, kind)
    return written.getvalue()


@dataclass
class Service:
    """What the tests talk to."""

    port: int
    model: Model
    gallery: Gallery
    folder: Path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            own = {"Authorization": f"Bearer {token}"} if token is not None else {}
            connection.request(method, path, body, {**own, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def post(self, path: str, files: dict[str, bytes]) -> tuple[int, Any]:
        """A form with files, by name; status and JSON."""
        body, kind = form(files)
        status, _, answer = self.ask("POST", path, body, headers={"Content-Type": kind})
        return status, json.loads(answer)


def form(files: dict[str, bytes]) -> tuple[bytes, str]:
    """multipart/form-data and its Content-Type."""
    parts = []
    for name, data in files.items():
        quoted = name.replace('"', "%22").encode()
        parts.append(b'--limit\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n\r\n')
        parts.append(data + b"\r\n")
    return b"".join([*parts, b"--limit--\r\n"]), "multipart/form-data; boundary=limit"


@contextlib.contextmanager
def served(model: Model, gallery: Gallery, folder: Path) -> Iterator[Service]:
    """A server on a free port, in a thread."""
    own = listening("127.0.0.1", 0)
    engine = LocalEngine(model, gallery, threads=1)
    app = make_app(engine, gallery, model.settings, token=TOKEN, cookie="tests")
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Service(own.getsockname()[1], model, gallery, folder)
    finally:
        server.should_exit = True
        thread.join(20)
        engine.close()
        own.close()
