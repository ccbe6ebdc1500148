"""Reads images that a client sends: one as the body, or several as a form. Never more than the limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from reidray.serving.engine import Upload
from reidray.serving.guard import Refused

MOST_BYTES = 64_000_000
"""Of a request."""

MOST_IMAGES = 256
"""Of a request."""

_SECONDS = 60.0
_LONGEST_NAME = 255


async def read_uploads(request: Request, *, most_images: int) -> list[Upload]:
    """The images of a request, in their order.

    A form (multipart/form-data) holds files, whatever its fields are called; any other body is an image by itself.

    Raises:
      Refused: nothing is there, it is too much or too slow, or it is no form.
    """
    if _declared(request) > MOST_BYTES:
        raise _too_large(_declared(request))
    try:
        async with asyncio.timeout(_SECONDS):
            if request.headers.get("content-type", "").lower().startswith("multipart/"):
                uploads = await _of_form(request, most_images)
            else:
                uploads = [Upload("image", b"".join([chunk async for chunk in _counted(request)]))]
    except TimeoutError:
        raise Refused(408, f"expected the whole upload within {_SECONDS:g} seconds, and it did not come.") from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the upload did.") from None
    if not uploads:
        raise Refused(400, "expected an image, got a form without files.")
    if len(uploads) == 1 and not uploads[0].data:
        raise Refused(400, "expected an image, got nothing: send the bytes of an image file.")
    return uploads


def _declared(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


async def _counted(request: Request) -> AsyncGenerator[bytes, None]:
    """The body, as long as it keeps the limit."""
    got, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        got += len(chunk)
        if got > MOST_BYTES:
            raise _too_large(got)
        yield chunk


async def _of_form(request: Request, most_images: int) -> list[Upload]:
    parser = MultiPartParser(request.headers, _counted(request), max_files=most_images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refused(413, f"expected at most {most_images} {_images(most_images)}, got more.") from None
        if error.message.startswith("Too many fields"):
            raise Refused(400, "expected files in the form, got a field without a file name.") from None
        raise Refused(400, f"expected a form with files, got one that cannot be read ({error.message})") from None
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        return [Upload((file.filename or "image")[:_LONGEST_NAME], await file.read()) for file in files]
    finally:
        await form.close()


def _images(count: int) -> str:
    return "image" if count == 1 else "images in a request"


def _too_large(got: int) -> Refused:
    return Refused(
        413,
        f"expected at most {MOST_BYTES / 1e6:g} MB in a request, got {got / 1e6:.0f} MB or more: send fewer images.",
    )
