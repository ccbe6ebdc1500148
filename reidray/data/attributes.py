"""What was noted about persons: sleeves, hair, bags, colours. Read by name from the file beside the images.

    root/market_attribute.mat    Y. Lin et al., "Improving Person Re-identification by Attribute and Identity Learning",
                                 Pattern Recognition 95, 2019: 27 attributes of Market-1501's persons
    root/duke_attribute.mat      the same authors' 23 attributes of DukeMTMC-reID's persons
    root/attributes.json         what drawn pedestrians look like; of it only what an annotator could note

All three tell attributes of persons, not of images: an image has those of the person in its file name. So they are
annotations made by somebody who knew who is who, and a method that reads them is weakly supervised.
"""

# N = images, P = persons, A = attributes

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidray.arrays import Array, Codes, Ints
from reidray.data import mat5

UNKNOWN = -1

MARKET_FILE, DUKE_FILE, DRAWN_FILE = "market_attribute.mat", "duke_attribute.mat", "attributes.json"

MARKET_NAMES = (
    *("gender", "hair", "up", "down", "clothes", "hat", "backpack", "bag", "handbag", "age"),
    *("upblack", "upwhite", "upred", "uppurple", "upyellow", "upgray", "upblue", "upgreen"),
    *("downblack", "downwhite", "downpink", "downpurple", "downyellow", "downgray", "downblue", "downgreen"),
    "downbrown",
)
DUKE_NAMES = (
    *("gender", "top", "boots", "hat", "backpack", "bag", "handbag", "shoes"),
    *("upblack", "upwhite", "upred", "uppurple", "upgray", "upblue", "upgreen", "upbrown"),
    *("downblack", "downwhite", "downred", "downgray", "downblue", "downgreen", "downbrown"),
)
DRAWN_NAMES = (
    *("hair", "up", "down", "clothes", "hat", "backpack", "bag", "handbag"),
    *("upcolour", "downcolour"),
)

_MAX_MAT_BYTES = 4 * 2**20  # the published files have some 10 kB
_PERSONS = "image_index"  # that is what the published files call the identities
_PERSON = re.compile(r"\d{1,9}", re.ASCII)
_WITHOUT = "or rename it to go without attributes"

# The colours that Market-1501's upper and lower bodies have between them; with each, the drawn palette's shades of it.
_COLOURS = (
    ("black",),
    ("white", "cream"),
    ("red", "maroon"),
    ("pink", "coral", "magenta"),
    ("purple", "lavender"),
    ("yellow", "mustard", "orange"),
    ("grey", "charcoal", "silver"),
    ("blue", "sky", "denim", "navy", "turquoise"),
    ("green", "lime", "forest", "olive", "teal"),
    ("brown", "khaki"),
)
_SHADES = tuple(shade for shades in _COLOURS for shade in shades)


@dataclass(frozen=True, eq=False)
class Attributes:
    """What was noted of some rows (persons or images).

    Attributes:
      names: of the attributes, one each, Python identifiers other than "name".
      values_NA: int32, a row an image or person and a column an attribute. What a number means is the file's business;
        equal numbers of a column mean that the same was noted. -1: not noted.
    """

    names: tuple[str, ...]
    values_NA: Codes

    def __post_init__(self) -> None:
        odd = [name for name in self.names if not name.isidentifier() or name == "name"]
        if odd or not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"expected attributes with different plain names other than 'name', got {odd or list(self.names)}."
            )
        values_NA = self.values_NA
        if values_NA.dtype != np.int32 or values_NA.ndim != 2 or values_NA.shape[1] != len(self.names):
            raise ValueError(
                f"expected an int32 column for each of {len(self.names)} attributes, got {values_NA.dtype} "
                f"{values_NA.shape}."
            )
        if (values_NA < UNKNOWN).any():
            raise ValueError(f"expected attributes of -1 (not noted) or more, got {values_NA.min()}.")

    @property
    def num_unknown(self) -> int:
        """Rows of which nothing was noted."""
        return int((self.values_NA == UNKNOWN).all(axis=1).sum())


@dataclass(frozen=True, eq=False)
class PersonAttributes:
    """A table of persons.

    Attributes:
      persons_P: int64, ascending, each once.
      attributes: rows in the order of the persons.
    """

    persons_P: Ints
    attributes: Attributes

    def of_images(self, persons_N: Sequence[int] | Array) -> Attributes:
        """What was noted of the person in each image.

        Args:
          persons_N: the identity of each image.

        Returns:
          Rows in the order of the images; -1 everywhere for a person who is not in the table.
        """
        persons_N = np.asarray(persons_N, np.int64)
        values_NA = np.full((len(persons_N), len(self.attributes.names)), UNKNOWN, np.int32)
        if len(self.persons_P):
            rows_N = np.searchsorted(self.persons_P, persons_N).clip(max=len(self.persons_P) - 1)
            known_N = self.persons_P[rows_N] == persons_N
            values_NA[known_N] = self.attributes.values_NA[rows_N[known_N]]
        return Attributes(self.attributes.names, values_NA)


def distinct_vectors(values_NA: Array) -> int:
    """How many different rows there are, those of which nothing was noted (-1 everywhere) left out.

    Beside the number of persons this says how near the attributes come to the identity: Market-1501's training set has
    508 for 751 persons.
    """
    values_NA = np.asarray(values_NA)
    known_NA = values_NA[(values_NA != UNKNOWN).any(axis=1)]
    return len(np.unique(known_NA, axis=0)) if len(known_NA) else 0


def attributes_beside(root: Path, persons_N: Sequence[int], *, split: str) -> Attributes | None:
    """The attributes of a split's images, from the file of attributes in the data's root.

    Args:
      root: where market_attribute.mat, duke_attribute.mat or attributes.json may lie.
      persons_N: the identity of each image, from its file name.
      split: "train", the only one that labels are made for, or another one of the file.

    Returns:
      Rows in the order of the images, -1 everywhere for a person whom the file does not tell; None where there is no
      such file.

    Raises:
      ValueError: there are several of these files, it is damaged, or it tells none of these persons.
    """
    readers = {MARKET_FILE: read_market_mat, DUKE_FILE: read_duke_mat, DRAWN_FILE: read_drawn_json}
    found = [root / file for file in readers if (root / file).exists()]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{root}: expected one file of attributes, got {' and '.join(path.name for path in found)}; keep the one "
            "that belongs to these images."
        )
    attributes = readers[found[0].name](found[0], split=split).of_images(persons_N)
    if len(persons_N) and attributes.num_unknown == len(persons_N):
        raise ValueError(
            f"{found[0]}: expected attributes of the persons in split {split}, got none of {len(set(persons_N))}; it "
            f"belongs to other images: replace it, {_WITHOUT}."
        )
    return attributes


# MATLAB


def read_market_mat(path: Path, *, split: str) -> PersonAttributes:
    """Market-1501's published attributes.

    The file holds two structs, "train" and "test", with one field an attribute, whose order differs between the two:
    fields are read by name, and columns come in the order of MARKET_NAMES. Other fields are not read.

    Args:
      path: market_attribute.mat, MATLAB 5 (what `save` writes but for -v7.3), at most 4 MiB.
      split: "train" or "test".

    Returns:
      751 persons of train or 750 of test; 1 and 2 (age: 1 to 4) with the meaning that the file's authors give them; 0,
      which has none, becomes -1.

    Raises:
      ValueError: the file is missing or cannot be read, or a field is missing or has another form.
    """
    return _read_mat(path, split, variable="market_attribute", names=MARKET_NAMES)


def read_duke_mat(path: Path, *, split: str) -> PersonAttributes:
    """DukeMTMC-reID's published attributes: as `read_market_mat`, with 702 persons of train and 1,110 of test.

    (Of two persons of train the published file has a 0 for "top", hence a -1 here.)
    """
    return _read_mat(path, split, variable="duke_attribute", names=DUKE_NAMES)


def _read_mat(path: Path, split: str, *, variable: str, names: tuple[str, ...]) -> PersonAttributes:
    table = _field(_loaded_mat(path, variable), split, path, variable)
    where = f"{variable}.{split}"
    persons_P = _identities(_field(table, _PERSONS, path, where), path, f"{where}.{_PERSONS}")
    if len(np.unique(persons_P)) < len(persons_P):
        raise ValueError(
            f"{path}: expected each person once in {where}.{_PERSONS}, got some twice; fetch the file "
            f"again, {_WITHOUT}."
        )
    columns = [_codes(_field(table, name, path, where), len(persons_P), path, f"{where}.{name}") for name in names]
    return _by_person(persons_P, names, np.stack(columns, axis=1))


def _loaded_mat(path: Path, variable: str) -> Any:
    data = _bytes(path, at_most=_MAX_MAT_BYTES)
    try:
        content = mat5.read(data)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a MATLAB 5 file, got one that cannot be read ({error}); fetch it again, save it with "
            f"-v7, {_WITHOUT}."
        ) from error
    return _field(content, variable, path, "the file")


def _field(struct: Any, name: str, path: Path, where: str) -> Any:
    if isinstance(struct, dict) and name in struct:
        return struct[name]
    raise ValueError(f"{path}: expected a field {name} in {where}, got none; fetch the file again, {_WITHOUT}.")


def _row(array: Any) -> Array | None:
    """The entries of a 1 x P or P x 1 array, in order; None for anything else."""
    return array.ravel() if isinstance(array, np.ndarray) and array.ndim == 2 and 1 in array.shape else None


def _identities(cells: Any, path: Path, where: str) -> Ints:
    """From a row of cells with a text such as '0002' each."""
    row = _row(cells)
    if row is None or not all(isinstance(cell, str) and _PERSON.fullmatch(cell) for cell in row):
        raise ValueError(
            f"{path}: expected a row of identities such as '0002' in {where}, got {_form(cells)}; fetch the file "
            f"again, {_WITHOUT}."
        )
    return np.array([int(cell) for cell in row], np.int64)


def _codes(values: Any, count: int, path: Path, where: str) -> Codes:
    """A row of whole numbers, one a person; 0 becomes -1."""
    row_P = _row(values)
    if row_P is None or row_P.shape != (count,) or not _whole(row_P):
        raise ValueError(
            f"{path}: expected a row of {count} whole numbers in {where}, got {_form(values)}; fetch the file again, "
            f"{_WITHOUT}."
        )
    codes_P = row_P.astype(np.int32)
    codes_P[codes_P == 0] = UNKNOWN
    return codes_P


def _whole(numbers_P: Array) -> bool:
    if numbers_P.dtype.kind not in "buif":
        return False
    return bool(((numbers_P >= 0) & (numbers_P < 2**31) & (numbers_P == np.floor(numbers_P))).all())


def _form(value: Any) -> str:
    """What a field holds, in few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return "a text" if isinstance(value, str) else "a struct" if isinstance(value, dict) else "something else"


# drawn pedestrians


def read_drawn_json(path: Path, *, split: str) -> PersonAttributes:
    """What an annotator could note of drawn pedestrians, from the attributes.json that is drawn with them.

    Kinds and shades are named more finely there than anybody annotates, and together they tell nearly every person.
    So they are read as Market-1501's annotators would have put it: length of the hair (1 short, 2 long), of the sleeves
    (`up`: 1 long, 2 short) and of what the legs wear (`down`: 1 long, 2 short), `clothes` (1 dress or skirt, 2 other),
    whether there is a hat, a backpack, a bag on the shoulder, a handbag (1 no, 2 yes), and which of ten plain colours
    the upper and the lower body have (1 to 10, in the order of the table in this file; bare legs have none: -1). Left
    out: height and girth, which are numbers that nobody sees; skin, colour of the hair, patterns and shoes, which are
    not in Market-1501's list; and `split` and `twin_of`, which are not attributes.

    Args:
      path: attributes.json: {"0001": {"split": "train", "hair": "long", ...}, ...}.
      split: "train", "validation" or "test".

    Returns:
      The persons of that split; columns in the order of DRAWN_NAMES.

    Raises:
      ValueError: the file is missing or is none of drawn pedestrians.
    """
    data = _bytes(path, at_most=None)
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a JSON object of persons, got something else ({_one_line(error)}); draw the data set "
            f"again, {_WITHOUT}."
        ) from error
    if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
        raise ValueError(
            f"{path}: expected a JSON object with an object for each person, got something else; draw the data set "
            f"again, {_WITHOUT}."
        )
    rows: dict[int, list[int]] = {}
    for person, traits in told.items():
        if _PERSON.fullmatch(person) is None:
            raise ValueError(
                f"{path}: expected persons with numbers such as '0002', got {person!r}; draw the data set again, "
                f"{_WITHOUT}."
            )
        if traits.get("split") == split:
            noted = _noted(traits, f"{path}: person {person}")
            rows[int(person)] = [noted[name] for name in DRAWN_NAMES]
    values_PA = np.array(list(rows.values()), np.int32).reshape(len(rows), len(DRAWN_NAMES))
    return _by_person(np.array(list(rows), np.int64), DRAWN_NAMES, values_PA)


def _noted(traits: Mapping[str, Any], who: str) -> dict[str, int]:
    """The codes of one drawn person; the traits are those of reidray/data/drawn/identity.py:attributes."""

    def code(trait: str, *classes: tuple[str, ...]) -> int:
        for number, names in enumerate(classes, start=1):
            if traits.get(trait) in names:
                return number
        raise ValueError(
            f"{who}: expected {trait} as drawn pedestrians have it, got {traits.get(trait)!r}; draw the data set "
            f"again, {_WITHOUT}."
        )

    def worn(trait: str) -> int:
        return code(trait, ("none",), ("cap", "beanie", *_SHADES))

    bare = traits.get("bottom_colour") == "none"
    return {
        "hair": code("hair", ("short", "bald"), ("long", "bob", "bun", "ponytail")),
        "up": code("top", ("shirt", "jacket", "coat", "hoodie"), ("tshirt", "dress")),
        "down": code("bottom", ("trousers", "leggings"), ("shorts", "skirt", "bare")),
        "clothes": 1 if traits["top"] == "dress" or traits["bottom"] == "skirt" else 2,
        "hat": worn("hat"),
        "backpack": worn("backpack"),
        "bag": worn("shoulder_bag"),
        "handbag": worn("handbag"),
        "upcolour": code("top_colour", *_COLOURS),
        "downcolour": UNKNOWN if bare else code("bottom_colour", *_COLOURS),
    }


# what all of them need


def _bytes(path: Path, *, at_most: int | None) -> bytes:
    try:
        if at_most is not None and path.stat().st_size > at_most:
            raise ValueError(
                f"{path}: expected at most {at_most} bytes, got {path.stat().st_size}; fetch the file again, "
                f"{_WITHOUT}."
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: expected a file of attributes, got none that can be read ({error.strerror}); check the place and "
            f"its rights, {_WITHOUT}."
        ) from error


def _by_person(persons_P: Ints, names: tuple[str, ...], values_PA: Codes) -> PersonAttributes:
    order_P = np.argsort(persons_P, kind="stable")
    return PersonAttributes(persons_P[order_P], Attributes(names, values_PA[order_P]))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
