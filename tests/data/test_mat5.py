import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy import sparse
from scipy.io import loadmat, savemat

from reidray.data import mat5


def saved(**variables):
    options = {"do_compression": variables.pop("do_compression", False)}
    file = io.BytesIO()
    savemat(file, variables, **options)
    return file.getvalue()


def cells(*values, shape):
    row = np.empty(len(values), object)
    for place, value in enumerate(values):
        row[place] = value
    return row.reshape(shape)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8", "?"])
def test_numbers_of_any_type_are_those_that_scipy_reads(dtype, compressed):
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 5), (4, 3), (2, 3, 4), (0, 0), (1, 0)):
        numbers = random.integers(0, 2 if dtype == "?" else 100, shape).astype(dtype)
        data = saved(a=numbers, b=numbers.T, do_compression=compressed)
        found, expected = mat5.read(data), loadmat(io.BytesIO(data))
        for name in ("a", "b"):
            np.testing.assert_array_equal(found[name], expected[name], strict=False)
            assert found[name].shape == expected[name].shape


def test_texts_cells_and_structs_come_as_such():
    inner = {"age": np.array([[1, 4]]), "who": cells("0002", "0007", 3, shape=(1, 3)), "empty": ""}
    found = mat5.read(saved(all={"train": inner, "note": "à la carte 三"}, column=cells("a", "b", shape=(2, 1))))
    assert set(found) == {"all", "column"}
    assert found["all"]["note"] == "à la carte 三"
    train = found["all"]["train"]
    assert list(train) == ["age", "who", "empty"]
    assert train["age"].tolist() == [[1, 4]]
    assert train["who"].shape == (1, 3)
    assert train["who"][0, :2].tolist() == ["0002", "0007"]
    assert train["who"][0, 2].tolist() == [[3]]
    assert found["column"].tolist() == [["a"], ["b"]]


def test_what_tables_do_not_need_is_none_and_does_not_hide_the_rest():
    two_structs = np.zeros((1, 2), [("a", object)])
    found = mat5.read(
        saved(
            complex=np.array([[1 + 2j]]),
            sparse=sparse.csc_array(np.eye(3)),
            structs=two_structs,
            texts=np.array(["ab", "cd"]),
            last=7,
        )
    )
    assert found["last"].tolist() == [[7]]
    for name in ("complex", "sparse", "structs", "texts"):
        assert found[name] is None


def element(kind, data, order=">"):
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind, shape, name, *parts, order=">"):
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    dims = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, flags + dims + element(1, name, order) + b"".join(parts), order)


def file_of(*elements, order=">"):
    head = b"MATLAB 5.0 MAT-file, made by hand".ljust(124)
    return head + struct.pack(f"{order}H", 0x0100) + (b"MI" if order == ">" else b"IM") + b"".join(elements)


def test_a_big_endian_file_made_by_hand_is_read():
    numbers = matrix(6, (2, 3), b"a", element(4, struct.pack(">6H", 1, 2, 3, 4, 5, 600)))
    text = matrix(4, (1, 4), b"who", element(4, "0002".encode("utf-16-be")))
    found = mat5.read(file_of(numbers, text))
    assert found["who"] == "0002"
    assert found["a"].tolist() == [[1, 3, 5], [2, 4, 600]]
    assert found["a"].dtype.isnative


def test_numbers_within_their_tag_are_read():
    small = struct.pack("<HH4s", 2, 3, b"\x01\x02\x03\x00")
    assert mat5.read(file_of(matrix(9, (1, 3), b"a", small, order="<"), order="<"))["a"].tolist() == [[1, 2, 3]]


# what somebody might have made


def nested(depth):
    inner = matrix(6, (0, 0), b"")
    for _ in range(depth):
        inner = matrix(1, (1, 1), b"", inner)
    return inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin as one"),
        (bytes(2000), "does not begin as one"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "MATLAB 7.3, which is HDF5"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM", "MATLAB 7.3, which is HDF5"),
        (file_of(b"abc"), "cut short"),
        (file_of(struct.pack(">II", 14, 2**32 - 1)), "cut short"),
        (file_of(struct.pack(">HHI", 5, 1, 0)), "small element that is none"),
        (file_of(element(15, b"abcdefgh")), "incorrect header check"),
        (file_of(element(15, zlib.compress(bytes(10_000))[:-6])), "cut short"),
        (file_of(matrix(6, (2, 2), b"a", element(9, bytes(24)))), "too few or too many numbers"),
        (file_of(matrix(6, (2**31 - 1, 2**31 - 1), b"a", element(9, bytes(8)))), "too few or too many numbers"),
        (file_of(matrix(6, (-1, -1), b"a", element(9, bytes(8)))), "impossible size"),
        (file_of(matrix(6, (1,), b"a", element(9, bytes(8)))), "impossible size"),
        (file_of(matrix(6, (1, 1), b"a", element(9, bytes(7)))), "part of a number"),
        (file_of(matrix(6, (1, 1), b"a", element(99, bytes(8)))), "unknown type"),
        (file_of(matrix(1, (2**31 - 1, 2), b"a", nested(0))), "too few or too many cells"),
        (file_of(matrix(1, (1, 1), b"a", element(9, bytes(8)))), "other than an array in a cell"),
        (file_of(matrix(2, (1, 1), b"a")), "struct without names"),
        (file_of(matrix(2, (1, 1), b"a", element(5, bytes(4)), element(1, b"ab"))), "too few or too many fields"),
        (file_of(matrix(2, (1, 1), b"a", element(5, b"\0\0\0\2"), element(1, b"abcd"))), "too few or too many fields"),
        (file_of(element(14, element(5, bytes(8)))), "array without a class"),
        (file_of(nested(1000)), "structs within structs without end"),
    ],
    ids=range(22),
)
def test_what_is_damaged_is_refused_in_a_few_words(data, message):
    with pytest.raises(ValueError, match=message):
        mat5.read(data)


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = file_of(element(15, zlib.compress(bytes(2**25))))
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than"):
        mat5.read(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * mat5.MAX_UNPACKED_BYTES
    tracemalloc.stop()


def test_many_variables_may_not_unpack_to_more_than_one_may():
    half = zlib.compress(bytes(mat5.MAX_UNPACKED_BYTES // 2 + 8))
    with pytest.raises(ValueError, match="unpacks to more than"):
        mat5.read(file_of(element(15, half)[: 8 + len(half)], element(15, half)))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_or_changed_anywhere_is_read_or_refused(compressed):
    """Where scipy.io.loadmat may end the process."""
    table = {"age": np.arange(9, dtype=np.uint8)[None], "who": cells("0002", "0007", shape=(1, 2)), "big": np.eye(3)}
    whole = saved(all={"train": table}, do_compression=compressed)
    num_refused = 0
    for place in range(len(whole)):
        changed = [whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :] for mask in (1, 128, 255)]
        for data in (whole[:place], *changed):
            try:
                mat5.read(data)
            except ValueError:
                num_refused += 1
    assert num_refused > len(whole)
