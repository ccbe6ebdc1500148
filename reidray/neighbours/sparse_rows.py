"""Sparse rows of unknown length, written once: pieces of rows by several threads, and columns in ascending order.

A kernel of this room handles the rows first .. last - 1 and returns how long each became with their columns (and
values) one after the other. `in_pieces` hands pieces of rows to threads, and `joined` puts what they return together in
order of rows, so that nothing depends on the number of threads, nothing is counted before it is written, and the only
memory besides the result is the scratch of the pieces at work.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from reidray.arrays import Array
from reidray.compiled import njit
from reidray.threads import side_by_side

# E = stored entries; W = words of 64 bits, G = groups of 64 words
# ends_N1: row i lies at ends[i] .. ends[i + 1]

_PIECE = 2048  # rows


class Rows(NamedTuple):
    """One sparse row of positive float32 values per image; columns int32."""

    ends_N1: Array
    columns_E: Array
    values_E: Array


def in_pieces(kernel: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """kernel(first, last, *arguments) for all pieces of `count` rows, by as many threads as `set_threads` says.

    The kernel releases the GIL and writes nothing that another piece reads.

    Returns:
      what the kernel returned, in order of rows.
    """

    def one(first: int) -> Any:
        return kernel(first, min(first + _PIECE, count), *arguments)

    return side_by_side(one, range(0, count, _PIECE))


def joined(pieces: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """ends_N1 and then columns, values of the (lengths, columns, values) that a kernel returned for each piece."""
    lengths_N, *entries = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return row_ends(lengths_N), *entries


def row_ends(lengths_N: Array) -> Array:
    """Where each row begins and ends when rows of these lengths stand one after the other; int64."""
    ends_N1 = np.zeros(len(lengths_N) + 1, np.int64)
    np.cumsum(lengths_N, out=ends_N1[1:])
    return ends_N1


@njit(cache=True, nogil=True)
def longer(values_E: Any, needed: int) -> Any:
    """A copy with room for `needed` entries, and for twice as many as before: growing costs a constant per entry."""
    grown_E = np.empty(max(2 * values_E.shape[0], needed), values_E.dtype)
    grown_E[: values_E.shape[0]] = values_E
    return grown_E


# A set of indices as two levels of bits: a bit per index, and a bit per word of those that is not empty. Reading the
# set out in ascending order costs a few instructions per member, which is several times less than sorting them, and it
# fits the fastest cache up to some 200,000 indices. `empty_set` gives (words_W, groups_G).


@njit(cache=True, nogil=True)
def empty_set(count: int) -> Any:
    """The empty set of indices below `count`."""
    return np.zeros((count >> 6) + 1, np.int64), np.zeros((count >> 12) + 1, np.int64)


@njit(cache=True, nogil=True)
def add(words_W: Any, groups_G: Any, index: Any) -> None:
    """Puts an index into the set."""
    words_W[index >> 6] |= np.int64(1) << np.int64(index & 63)
    groups_G[index >> 12] |= np.int64(1) << np.int64((index >> 6) & 63)


@njit(cache=True, nogil=True)
def take_all(words_W: Any, groups_G: Any, found: Any) -> int:
    """Moves the members to the front of `found`, ascending, leaves the set empty, and returns how many they were."""
    size = 0
    for g in range(groups_G.shape[0]):
        group = groups_G[g]
        groups_G[g] = 0
        while group != 0:
            w = (g << 6) + _lowest(group)
            group &= group - 1
            word = words_W[w]
            words_W[w] = 0
            while word != 0:
                found[size] = (w << 6) + _lowest(word)
                word &= word - 1
                size += 1
    return size


# The lowest bit, alone, times this constant has another pattern in its upper six bits for each of the 64 places
# (a de Bruijn sequence: C. Leiserson et al., "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998).
_DE_BRUIJN = 0x03F79D71B4CB0A89
_PLACES = np.zeros(64, np.int64)
for _place in range(64):
    _PLACES[(_DE_BRUIJN << _place) % 2**64 >> 58] = _place


@njit(cache=True, nogil=True)
def _lowest(word: Any) -> Any:
    """Place of the lowest bit that is set."""
    return _PLACES[(((word & -word) * _DE_BRUIJN) >> 58) & 63]
