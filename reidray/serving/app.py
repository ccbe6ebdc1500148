"""The routes, as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from reidray.config import Settings
from reidray.data.decode import BadImage
from reidray.gallery import Gallery, Match
from reidray.serving.engine import Engine, Wanted
from reidray.serving.guard import Guard, Refused, sentence
from reidray.serving.metrics import Metrics
from reidray.serving.thumbnails import Thumbnails
from reidray.serving.uploads import MOST_BYTES, MOST_IMAGES, read_uploads

MOST_K = 1000
"""Results of a search."""

_LONGEST_ROW = 18  # digits
_AT_ONCE = 32  # uploads that are in memory
_PAGE = {"/": "index.html", "/icon.svg": "icon.svg", "/page.css": "page.css", "/page.js": "page.js"}

_logger = logging.getLogger("reidray.serving")


def make_app(engine: Engine, gallery: Gallery, settings: Settings, *, token: str, cookie: str = "reidray") -> ASGIApp:
    """The service.

    Args:
      engine: embeds and searches.
      gallery: for names, cameras and thumbnails; it needs no model.
      settings: of the model.
      token: that every client must send.
      cookie: name of the cookie that holds it in a browser.
    """
    metrics = Metrics()
    service = _Service(engine, gallery, settings, metrics)
    routes = [
        Route("/embed", service.embed, methods=["POST"]),
        Route("/search", service.search, methods=["POST"]),
        Route("/image/{row}", service.image, methods=["GET"]),
        Route("/about", service.about, methods=["GET"]),
        Route("/health", service.health, methods=["GET"]),
        Route("/metrics", service.metrics, methods=["GET"]),
        *(Route(path, partial(_page, name), methods=["GET"]) for path, name in _PAGE.items()),
    ]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        HTTPException: _no_such_route,
        Refused: _refused,
        BadImage: _bad_image,
        ValueError: _cannot,
        Exception: _failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, token=token, cookie=cookie, metrics=metrics)


class _Service:
    def __init__(self, engine: Engine, gallery: Gallery, settings: Settings, metrics: Metrics) -> None:
        self._engine, self._gallery, self._metrics = engine, gallery, metrics
        self._thumbnails = Thumbnails(gallery, settings)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def embed(self, request: Request) -> Response:
        """POST /embed."""
        _check_parameters(request, ())
        async with self._room:
            uploads = await read_uploads(request, most_images=MOST_IMAGES)
            features_ND = await self._engine.embed(uploads)
        self._metrics.embedded(len(uploads))
        if "application/octet-stream" in request.headers.get("accept", ""):
            shape = ",".join(map(str, features_ND.shape))
            body = features_ND.astype("<f4", copy=False).tobytes()
            return Response(body, media_type="application/octet-stream", headers={"x-reidray-shape": shape})
        about = self._engine.about
        return JSONResponse(
            {
                "model": about.model,
                "width": about.width,
                "names": [upload.name for upload in uploads],
                "features": features_ND.tolist(),
            }
        )

    async def search(self, request: Request) -> Response:
        """POST /search?k=10&camera=door1&not_camera=door2."""
        wanted = _wanted(request)
        if wanted.cameras or wanted.not_cameras:
            await asyncio.to_thread(self._check_cameras, wanted)
        async with self._room:
            upload = (await read_uploads(request, most_images=1))[0]
            found = await self._engine.search(upload, wanted)
        self._metrics.embedded(1)
        return JSONResponse(
            {
                "query": upload.name,
                "gallery": self._gallery.path.name,
                "results": [_result(rank, match) for rank, match in enumerate(found, start=1)],
            }
        )

    def _check_cameras(self, wanted: Wanted) -> None:
        known = self._gallery.images_by_camera
        for camera in (*(wanted.cameras or ()), *wanted.not_cameras):
            if camera not in known:
                raise Refused(400, f"there is no camera {camera[:50]!r} in the gallery: see /about.")

    async def image(self, request: Request) -> Response:
        """GET /image/<row>."""
        row: str = request.path_params["row"]
        number = row.isascii() and row.isdigit() and len(row) <= _LONGEST_ROW
        jpeg = await asyncio.to_thread(self._thumbnails.jpeg, int(row)) if number else None
        if jpeg is None:
            raise Refused(404, f"there is no image {row[:20]} in the gallery, or its file is gone.")
        return Response(jpeg, media_type="image/jpeg")

    async def about(self, _: Request) -> Response:
        """GET /about: what the page shows and offers."""
        about = self._engine.about
        images, cameras = await asyncio.to_thread(lambda: (len(self._gallery), self._gallery.images_by_camera))
        return JSONResponse(
            {
                "gallery": self._gallery.path.name,
                "images": images,
                "cameras": [{"camera": camera, "images": count} for camera, count in cameras.items()],
                "model": about.model,
                "method": about.text,
                "width": about.width,
                "most_k": MOST_K,
                "most_bytes": MOST_BYTES,
            }
        )

    async def health(self, _: Request) -> Response:
        """GET /health; says nothing but that the service answers."""
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        text = self._metrics.text(await asyncio.to_thread(len, self._gallery))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _page(name: str, _: Request) -> Response:
    """A file of the page: nothing is put into it."""
    body = (files("reidray.serving") / "page" / name).read_bytes()
    return Response(body, media_type=mimetypes.guess_type(name)[0])


def _result(rank: int, match: Match) -> dict[str, Any]:
    """Of a match; the folder that it lies in is of no concern to a client."""
    return {
        "rank": rank,
        "name": match.name,
        "similarity": round(match.similarity, 6),
        "camera": match.camera,
        "row": match.row,
        "image": f"/image/{match.row}",
    }


def _wanted(request: Request) -> Wanted:
    _check_parameters(request, ("k", "camera", "not_camera"))
    (k,) = _numbers(request, "k", 1, MOST_K) or [10]
    cameras, not_cameras = (request.query_params.getlist(name) for name in ("camera", "not_camera"))
    return Wanted(k, frozenset(cameras) if cameras else None, frozenset(not_cameras))


def _check_parameters(request: Request, known: Iterable[str]) -> None:
    for name in request.query_params:
        if name not in known:
            there = ", ".join(known) or "none"
            raise Refused(400, f"unknown parameter {name[:50]!r}: {request.scope['path']} takes {there}.")
    if len(request.query_params.getlist("k")) > 1:
        raise Refused(400, "expected k once, got it several times.")


def _numbers(request: Request, name: str, least: int, most: int) -> list[int]:
    found = []
    for text in request.query_params.getlist(name):
        digits = text.removeprefix("-")
        number = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 12 else None
        if number is None or not least <= number <= most:
            raise Refused(400, f"expected {name} as a number from {least} to {most}, got {text[:50]!r}.")
        found.append(number)
    return found


async def _no_such_route(request: Request, error: HTTPException) -> Response:
    path, method = request.url.path[:100], request.method
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return sentence(405, f"{path} does not take {method}: use {allowed}.", dict(error.headers or {}))
    return sentence(error.status_code, f"there is nothing at {path}: see /, /embed, /search, /health, /metrics.")


async def _refused(_: Request, error: Refused) -> Response:
    return sentence(error.status, error.sentence, error.headers)


async def _bad_image(_: Request, error: BadImage) -> Response:
    status = 413 if error.reason in ("too many pixels", "file too large") else 400
    return sentence(status, str(error))


async def _cannot(_: Request, error: ValueError) -> Response:
    """The gallery is gone, or of another model by now. The reason names files of this machine: it is for the log."""
    _logger.warning("%s", error, exc_info=error)
    return sentence(503, "the gallery cannot be searched now; the log of the service says why.")


async def _failed(_: Request, __: Exception) -> Response:
    """What nobody foresaw; it is raised once more, and the guard logs it."""
    return sentence(500, "the service failed to answer; its log says why.")
