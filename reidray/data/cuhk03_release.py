"""CUHK03 as released (Li et al., CVPR 2014), in the new protocol (Zhong et al., CVPR 2017).

    root/cuhk-03.mat                                  the pictures (MATLAB 7.3), also in root/cuhk03_release
    root/cuhk03_new_protocol_config_detected.mat      names, persons, cameras, splits; ..._labeled.mat likewise
    root/images_detected/1_001_1_01.png               the crops: pair of cameras 1, its person 1, view 1, picture 1

The crops are written from cuhk-03.mat, which takes h5py, or were written before, by torchreid for example. The files of
the protocol are those of person-re-ranking on GitHub.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reidray.arrays import Bytes, Ints
from reidray.data import mat5
from reidray.data.records import Dataset, ImageRecord, Split
from reidray.disk import disk_errors

_NAME = re.compile(r"(?P<pair>[1-5])_(?P<person>\d{3})_(?P<view>[12])_(?P<picture>\d{2})\.png", re.ASCII)
_FIELDS = ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")
_MOST_BYTES = 16 * 2**20
_PLACES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")


def config_file(root: Path, boxes: str) -> Path:
    """Where the protocol of these boxes is."""
    return root / f"cuhk03_new_protocol_config_{boxes}.mat"


def pictures_file(root: Path) -> Path | None:
    """Where cuhk-03.mat is; None where it is not."""
    return next((root / place for place in _PLACES if (root / place).is_file()), None)


def read(root: Path, boxes: str) -> Dataset:
    """Lists the images; writes the crops first where there are none.

    Args:
      root: holds the file of the protocol, and the crops or cuhk-03.mat.
      boxes: "detected" or "labeled".

    Raises:
      ValueError: a file is missing or has another form, crops are missing, or h5py is.
    """
    path = config_file(root, boxes)
    names, persons_N, cameras_N, splits = _protocol(path)
    folder = root / f"images_{boxes}"
    if not folder.is_dir():
        _write_crops(root, boxes, folder, names)
    there = {entry.name for entry in folder.iterdir()}
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing):,} of {len(names):,} crops are missing, such as {missing[0]}: move the folder "
            "away, and it is written from cuhk-03.mat again"
        )

    def split(name: str) -> Split:
        order = sorted(splits[name].tolist(), key=lambda place: names[place])
        images = [ImageRecord(folder / names[n], f"{folder.name}/{names[n]}", int(cameras_N[n]) - 1) for n in order]
        return Split(name, tuple(images), tuple(int(persons_N[n]) for n in order))

    return Dataset("cuhk03", root, {name: split(name) for name in ("train", "query", "gallery")}, {})


def _protocol(path: Path) -> tuple[list[str], Ints, Ints, dict[str, Ints]]:
    """Names, persons and cameras of all crops; indices from 0 of those in each split."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected at most {_MOST_BYTES} bytes, got {path.stat().st_size}")
    try:
        content = mat5.read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected a MATLAB 5 file, got one that cannot be read ({error})") from error
    lacking = [name for name in _FIELDS if not isinstance(content.get(name), np.ndarray)]
    if lacking:
        raise ValueError(f"{path}: expected {', '.join(_FIELDS)}, got no {lacking[0]}: fetch the protocol's file again")
    fields = {name: content[name].ravel() for name in _FIELDS}
    names = [str(name) for name in fields["filelist"]]
    count = len(names)
    for name in _FIELDS[1:]:
        if fields[name].dtype.kind not in "iuf" or not np.array_equal(np.round(fields[name]), fields[name]):
            raise ValueError(f"{path}: expected whole numbers in {name}, got something else")
    numbers = {name: fields[name].astype(np.int64) for name in _FIELDS[1:]}
    splits = {name: numbers[f"{name}_idx"] - 1 for name in ("train", "query", "gallery")}
    odd = next((name for name in names if _NAME.fullmatch(name) is None), None)
    fits = len(numbers["labels"]) == len(numbers["camId"]) == count and set(numbers["camId"].tolist()) <= {1, 2}
    fits = fits and all(len(own) and own.min() >= 0 and own.max() < count for own in splits.values())
    if odd is not None or not fits:
        got = f"the name {odd!r}" if odd is not None else "lists that do not belong together"
        raise ValueError(f"{path}: expected names like 1_001_1_01.png and their numbers, got {got}")
    return names, numbers["labels"], numbers["camId"], splits


def _write_crops(root: Path, boxes: str, folder: Path, names: Sequence[str]) -> None:
    """All crops of the protocol as PNG; the folder has its name when it is whole."""
    from PIL import Image

    source = pictures_file(root)
    if source is None:
        raise ValueError(
            f"{root}: expected the crops in {folder.name}, or {' or '.join(_PLACES)} to write them from; found neither"
        )
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        with disk_errors():
            partial.mkdir()
            for name, pixels_HW3 in _pictures(source, boxes, names):
                Image.fromarray(pixels_HW3).save(partial / name)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pictures(source: Path, boxes: str, names: Sequence[str]) -> Iterator[tuple[str, Bytes]]:
    """The pictures of these names: MATLAB's cell {pair}{person, picture} of the variable of these boxes."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{source} is HDF5, and h5py is not installed: pip install 'reidray[cuhk03]', or give the crops themselves"
        ) from error
    try:
        with h5py.File(source, "r") as file:
            pairs = [file[reference] for reference in np.ravel(file[boxes])]
            for name in names:
                match = _NAME.fullmatch(name)
                assert match is not None
                pair, person, picture = (int(match[part]) - 1 for part in ("pair", "person", "picture"))
                yield name, _picture(file[pairs[pair][picture, person]], name, source)  # HDF5 has the axes in reverse
    except (OSError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{source}: expected CUHK03's pictures of {boxes} boxes, got something else ({error}): fetch it again"
        ) from error


def _picture(dataset: Any, name: str, source: Path) -> Bytes:
    pixels: Bytes = np.ascontiguousarray(np.asarray(dataset).T)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"{name} is no picture in {source.name}")
    return pixels
