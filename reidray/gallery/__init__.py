"""Galleries: embeddings of many images in one Parquet file, searched exactly.

`file` is the format and its rules, `cameras` the names of cameras, `gallery` what people use, `opened` a file that is
searched, `picture` draws a ranked list.
"""

from reidray.gallery.gallery import Gallery
from reidray.gallery.opened import Match

__all__ = ["Gallery", "Match"]
