"""What is in a tar of samples: listed in one pass, and refused where it is anything but images and their JSON."""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidray.storage.index import EXTENSIONS, MAX_MEMBER_BYTES, PACK_AGAIN

MAX_JSON_BYTES = 64 * 2**10
MAX_TRACKLET_JSON_BYTES = 8 * 2**20

_MEMBER = re.compile(rf"(\d{{9}})\.(?:(\d{{4}})\.)?({'|'.join(EXTENSIONS)}|json)", re.ASCII)


@dataclass(frozen=True)
class Member:
    """One image inside a tar: where its bytes lie, their checksum, and what its JSON says."""

    extension: str
    offset: int
    size: int
    crc32: int
    name: str
    camera: int


def scan(path: Path, *, first: int, tracklets: bool = False) -> list[list[Member]]:
    """Lists the samples of a tar in one pass over it.

    Refused are members other than regular files called <9 digits>.json or, with an extension of images that are read,
    <9 digits>.jpg (so no paths, no links, no pickles; with tracklets four digits before the extension of an image),
    images without their JSON, keys out of order, and members beyond MAX_MEMBER_BYTES.

    Args:
      path: of the tar, uncompressed.
      first: the key its first sample must have.
      tracklets: whether samples are tracklets, and not images.

    Returns:
      The images of each sample, in the order of the keys.

    Raises:
      ValueError: the tar is cut short, or holds something that is refused.
    """
    samples: list[list[Member]] = []
    images: list[tuple[str, int, bytes]] = []
    meta: bytes | None = None
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for position, member in enumerate(tar):
                key, frame, extension = _check_member(path, member, tracklets)
                expected = "" if not tracklets or extension == "json" else f"{len(images):04d}"
                if int(key) != first + len(samples) or frame != expected:
                    raise ValueError(
                        f"{path}: expected key {first + len(samples):09d} at member {position}, got {member.name}; "
                        f"{PACK_AGAIN}."
                    )
                content = tar.extractfile(member)
                assert content is not None
                data = content.read()
                if len(data) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                if extension == "json":
                    meta = data
                else:
                    images.append((extension, member.offset_data, data))
                if len(images) > 1 and not tracklets:
                    raise ValueError(
                        f"{path}: expected an image and a .json for key {key}, got two images; {PACK_AGAIN}."
                    )
                if meta is not None and (images or tracklets):  # of a tracklet the JSON is the last
                    samples.append(_sample(path, key, images, meta, tracklets))
                    images, meta = [], None
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole tar, got one that is cut short ({error}); {PACK_AGAIN}.") from error
    if images or meta is not None:
        raise ValueError(f"{path}: expected an image and its .json per key, the last has only one; {PACK_AGAIN}.")
    return samples


def _check_member(path: Path, member: tarfile.TarInfo, tracklets: bool) -> tuple[str, str, str]:
    match = _MEMBER.fullmatch(member.name)
    if match is None or not member.isreg():
        example = "000000000.0000.jpg" if tracklets else "000000000.jpg"
        raise ValueError(
            f"{path}: expected only files like {example} and 000000000.json, got {member.name!r}; do not use this "
            f"tar, {PACK_AGAIN}."
        )
    most = MAX_TRACKLET_JSON_BYTES if tracklets else MAX_JSON_BYTES
    limit = most if match[3] == "json" else MAX_MEMBER_BYTES
    if member.size > limit:
        raise ValueError(f"{path}: expected at most {limit} bytes in {member.name}, got {member.size}; {PACK_AGAIN}.")
    return match[1], match[2] or "", match[3]


def _sample(
    path: Path, key: str, images: Sequence[tuple[str, int, bytes]], meta: bytes, tracklets: bool
) -> list[Member]:
    """The images of a sample, named by its JSON."""
    if not images:
        raise ValueError(f"{path}: expected an image and its .json per key, {key} has no image; {PACK_AGAIN}.")
    try:
        found = json.loads(meta)
        camera = int(found["camera"])
        names = [str(name) for name in found["frames"]] if tracklets else [str(found["name"])]
        if len(names) != len(images):
            raise ValueError(f"{len(names)} names of {len(images)} frames")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected name and camera in {key}.json, got {error!r}; {PACK_AGAIN}.") from error
    return [
        Member(extension, offset, len(data), zlib.crc32(data), name, camera)
        for name, (extension, offset, data) in zip(names, images, strict=True)
    ]
