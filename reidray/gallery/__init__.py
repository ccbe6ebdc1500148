"""Galleries: embeddings of many images in one Parquet file, searched exactly.

`file` is the format and its rules, `gallery` what people use, `picture` draws a ranked list.
"""

from reidray.gallery.gallery import Gallery, Match

__all__ = ["Gallery", "Match"]
