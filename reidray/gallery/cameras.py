"""The cameras of a gallery's images, by name."""

# N = images, C = cameras

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from reidray.arrays import Array, Codes
from reidray.data.image_files import in_words
from reidray.data.left_out import shown
from reidray.data.named_samples import natural, plain
from reidray.storage.camera_names import camera_names

TYPE = pa.dictionary(pa.int32(), pa.string())
"""Of the column; null where the camera is unknown."""


Named = Collection[str | int] | str
"""One camera or several, by name; a number is the name of a numbered camera."""


@dataclass(frozen=True)
class Cameras:
    """The camera of each image.

    Attributes:
      codes_N: int32, a place in the names; -1 where the camera is unknown.
      names: each once.
    """

    codes_N: Codes
    names: tuple[str, ...]

    def of(self, row: int) -> str | None:
        """The camera of a row."""
        code = int(self.codes_N[row])
        return None if code < 0 else self.names[code]

    def counts(self) -> dict[str, int]:
        """Images of each camera, in natural order (cam2 before cam10)."""
        counts_C = np.bincount(self.codes_N[self.codes_N >= 0], minlength=len(self.names)).tolist()
        found = {name: count for name, count in zip(self.names, counts_C, strict=True) if count}
        return {name: found[name] for name in sorted(found, key=natural)}

    def allowed(self, wanted: Named | None, unwanted: Named) -> Array | None:
        """Which images a search may find: bool [N]; None: all.

        Args:
          wanted: only images of these cameras; None: of any, and of unknown ones.
          unwanted: no image of these.

        Raises:
          ValueError: no image is of a camera that is named.
        """
        if wanted is None and not unwanted:
            return None
        may_C = np.full(len(self.names) + 1, wanted is None)  # the last one: unknown
        may_C[self._codes(() if wanted is None else wanted)] = True
        may_C[self._codes(unwanted)] = False
        allowed_N: Array = may_C[self.codes_N]
        return allowed_N

    def changed(self, cameras: Mapping[int, str]) -> Cameras:
        """The same with other cameras of some rows."""
        names = tuple(dict.fromkeys([*self.names, *cameras.values()]))
        places = {name: place for place, name in enumerate(names)}
        codes_N = self.codes_N.copy()
        for row, name in cameras.items():
            codes_N[row] = places[name]
        return Cameras(codes_N, names)

    def column(self, first: int, count: int) -> Any:
        """The column of some rows that follow each other, of `TYPE`."""
        codes_N = self.codes_N[first : first + count]
        indices = pa.array(codes_N, pa.int32(), mask=codes_N < 0)
        return pa.DictionaryArray.from_arrays(indices, pa.array(self.names, pa.string()))

    def _codes(self, cameras: Named) -> list[int]:
        codes, there = [], self.counts()
        for camera in [cameras] if isinstance(cameras, str) else cameras:
            name = next((name for name in (str(camera), plain(str(camera))) if name in there), None)
            if name is None:
                known = in_words([shown(name) for name in there], 8) if there else "none: its images have no camera"
                got = shown(str(camera)[:100])
                raise ValueError(f"there is no camera {got!r} in the gallery, whose cameras are {known}")
            codes.append(self.names.index(name))
        return codes


def read_cameras(column: Any, sources: Any) -> Cameras:
    """The cameras of a gallery's file.

    Args:
      column: an Arrow column of names; or of numbers from 0, -1 unknown, as in galleries of the first format: these get
        the names that their packs have for them.
      sources: of each image, an Arrow array of texts.
    """
    if not pa.types.is_integer(column.type):
        coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        codes_N = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        return Cameras(codes_N, tuple(coded.dictionary.to_pylist()))
    numbers_N, source = column.to_numpy(), sources.dictionary_encode()
    places_N, packs = source.indices.to_numpy(), source.dictionary.to_pylist()
    codes_N, names = np.full(len(numbers_N), -1, np.int32), dict[str | None, int]()
    for place in np.unique(places_N[numbers_N >= 0]).tolist():
        own_N = (places_N == place) & (numbers_N >= 0)
        numbers = np.unique(numbers_N[own_N])
        named = camera_names(packs[place], numbers.tolist())
        codes = np.array([names.setdefault(name, len(names)) for name in named], np.int32)
        codes_N[own_N] = codes[np.searchsorted(numbers, numbers_N[own_N])]
    return Cameras(codes_N, tuple(str(name) for name in names))
