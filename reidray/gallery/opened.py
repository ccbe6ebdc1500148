"""A gallery's file as it is at one time: its names and cameras in memory, its embeddings in the memory map."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidray.arrays import Array
from reidray.gallery.file import GalleryFile
from reidray.launch.services import num_cpus
from reidray.neighbours.queries import NearestRows
from reidray.threads import libraries_at_one_thread

# N = images of the gallery


@dataclass(frozen=True)
class Match:
    """An image of a gallery that was found.

    Attributes:
      name: as it was added.
      similarity: cosine, from -1 to 1; 1 is the same picture.
      camera: its name; None: unknown.
      source: the folder or pack that the name lies in; "" where there is none.
      row: its place in the gallery.
    """

    name: str
    similarity: float
    camera: str | None
    source: str
    row: int

    @property
    def path(self) -> Path | None:
        """The image's file, where it is still there."""
        file = Path(self.source) / self.name
        return file if self.source and file.is_file() else None


class Opened:
    """One state of the file: its names in memory."""

    def __init__(self, file: GalleryFile) -> None:
        self.file = file
        self.names, self.sources = file.names(), file.sources()
        self.cameras = file.cameras()

    def offer_all(self, nearest: NearestRows, allowed_N: Array | None) -> None:
        """Offers every row group, on all cores; reading releases the GIL as the product does."""

        def offer(group: int) -> None:
            for first, rows_BD in self.file.blocks(group):
                nearest.offer(first, rows_BD, None if allowed_N is None else allowed_N[first : first + len(rows_BD)])

        groups: Sequence[int] = range(self.file.num_groups)
        with libraries_at_one_thread():
            if len(groups) == 1:
                offer(0)
            else:
                with ThreadPoolExecutor(min(num_cpus(), len(groups))) as pool:
                    list(pool.map(offer, groups))

    def match(self, row: int, similarity: float) -> Match:
        """What is known of a row that was found."""
        return Match(self.names[row].as_py(), similarity, self.cameras.of(row), self.sources[row].as_py(), row)
