"""A CSV or Parquet list of images as a data set."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reidray.data import image_list
from reidray.data.detect import detect
from tests.data import trees

IMAGES = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "b/5.jpg"]


@pytest.fixture
def root(tmp_path):
    trees.write(tmp_path, IMAGES)
    return tmp_path


def written(root, text):
    (root / "images.csv").write_text(text)
    return root / "images.csv"


def test_a_column_of_paths_is_enough(root):
    dataset = image_list.read(written(root, "path\n" + "\n".join(reversed(IMAGES))))
    assert list(dataset.splits) == ["train"]
    train = dataset.splits["train"]
    assert [(image.name, image.camera) for image in train.images] == [(name, -1) for name in IMAGES]
    assert all(image.path == root / image.name for image in train.images)
    assert train.persons is None
    assert train.tracklets is None


WHOLE = """\
path,person,camera,split,colour
a/1.jpg,anna,door 2,,red
a/2.jpg,bob,door 10,train,red
b/3.jpg,anna,door 2,query,red
b/4.jpg,anna,door 10,test,red
b/5.jpg,,door 10,gallery,red
"""


@pytest.mark.parametrize("form", ["comma", "semicolon", "tab", "bar", "bom", "UTF-16", "UTF-16 BE", "Parquet"])
def test_persons_cameras_and_splits_by_any_names(root, form):
    rows = [line.split(",") for line in WHOLE.splitlines()]
    if form == "Parquet":
        table = pa.table({name.title(): [row[place] or None for row in rows[1:]] for place, name in enumerate(rows[0])})
        file = root / "images.parquet"
        pq.write_table(table, file)
    else:
        text = WHOLE.replace(",", {"semicolon": ";", "tab": "\t", "bar": "|"}.get(form, ",")).replace("path", "Path")
        encoding = {"bom": "utf-8-sig", "UTF-16": "utf-16", "UTF-16 BE": "utf-16-be"}.get(form, "utf-8")
        file = root / "images.txt"
        file.write_bytes((("\ufeff" if form == "UTF-16 BE" else "") + text).encode(encoding))
    dataset = image_list.read(file)
    assert {name: split.persons for name, split in dataset.splits.items()} == {
        "train": (1, 2),
        "query": (1,),
        "gallery": (1, 0),  # nobody knows who the last one is: a distractor
    }
    assert {name: split.cameras for name, split in dataset.splits.items()} == {
        "train": [0, 1],
        "query": [0],
        "gallery": [1, 1],
    }
    assert dataset.camera_names == ("door 2", "door 10")
    assert dataset.person_names == ("anna", "bob")
    assert detect(file) == ("list", "it is a file with a column path")


def test_numbers_in_parquet_are_whole_beside_missing_ones(root):
    table = pa.table({"path": IMAGES, "person": [3.0, None, 3.0, 12.0, float("nan")], "camera": [8, 8, 10, 9, 9]})
    pq.write_table(table, root / "images.parquet")
    dataset = image_list.read(root / "images.parquet")
    assert dataset.person_names == ("3", "12")
    assert dataset.camera_names == ("8", "9", "10")
    assert dataset.splits["train"].persons is None
    assert "caution: 2 of 5 training images have no person" in dataset.notes[-1]


def test_rows_of_a_tracklet_are_its_frames(root):
    text = "path,person,camera,tracklet\na/2.jpg,7,1,x\na/1.jpg,7,1,x\nb/3.jpg,7,2,x\nb/4.jpg,8,2,\n"
    train = image_list.read(written(root, text)).splits["train"]
    assert [(one.name, one.camera, one.frames) for one in train.tracklets] == [
        ("a/1.jpg", 0, 2),
        ("b/3.jpg", 1, 1),
        ("b/4.jpg", 1, 1),
    ]
    assert train.persons == (1, 1, 2)


def test_a_query_without_a_person_is_left_out_by_name(root):
    text = "path,person,split\na/1.jpg,7,query\na/2.jpg,,query\nb/3.jpg,7,gallery\n"
    dataset = image_list.read(written(root, text))
    assert len(dataset.splits["query"]) == 1
    assert dataset.left_out == {"query without a person": ("a/2.jpg",)}


def test_a_list_that_is_not_utf_8_is_read_where_its_paths_are_there(root):
    trees.write(root, ["é/1.jpg"])
    (root / "images.csv").write_bytes("path,person\né/1.jpg,Zoë\na/1.jpg,Jürgen\n".encode("cp1252"))
    dataset = image_list.read(root / "images.csv")
    assert dataset.person_names == ("Jürgen", "Zoë")
    assert [image.name for image in dataset.splits["train"].images] == ["a/1.jpg", "é/1.jpg"]
    assert dataset.notes[0] == "images.csv is not UTF-8: it is read as Windows-1252"
    trees.write(root, ["ж/1.jpg"])
    (root / "images.csv").write_bytes("path,person\na/1.jpg,1\nж/1.jpg,1\n".encode("cp1251"))
    with pytest.raises(
        ValueError, match=r"line 3: expected text in UTF-8, got other bytes, and æ/1\.jpg, which they are"
    ):
        image_list.read(root / "images.csv")


@pytest.mark.parametrize("blank", ["\n", " \n", ",\n", " , \n", "\n\n,\n", "\r\n"])
def test_blank_rows_do_not_count(root, blank):
    text = f"{blank}path,person\na/1.jpg,1\n{blank}a/2.jpg,2\n{blank}"
    dataset = image_list.read(written(root, text))
    assert dataset.splits["train"].persons == (1, 2)
    with pytest.raises(ValueError, match=f"line {3 + 2 * blank.count(chr(10))}: expected a path, got none"):
        image_list.read(written(root, f"{blank}path,person\na/1.jpg,1\n{blank},2\n"))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\npath;person\r\na/1.jpg;anna\r\na/2.jpg;bob\r\n",
        "SEP=,\npath,person\na/1.jpg,anna\na/2.jpg,bob\n",
        "path;person;;\na/1.jpg;anna;;\na/2.jpg;bob;;\n",
        "path;person\na/1.jpg;anna;;\na/2.jpg;bob; \n",
        ";path;person;\n0;a/1.jpg;anna;red\n1;a/2.jpg;bob;\n",
        "path,person\na\\1.jpg,anna\n.\\a\\2.jpg,bob\n",
        "path,person,split\na/1.jpg,anna,Train\na/2.jpg,bob,TRAIN\n",
    ],
    ids=["told", "told in capitals", "blank columns", "blank cells", "columns without names", "Windows", "split"],
)
def test_what_spreadsheets_write_beside_the_table(root, text):
    dataset = image_list.read(written(root, text))
    train = dataset.splits["train"]
    assert [image.name for image in train.images] == IMAGES[:2]
    assert (train.persons, dataset.person_names) == ((1, 2), ("anna", "bob"))
    assert detect(root / "images.csv")[0] == "list"


def test_a_backslash_in_the_name_of_a_file_stays(root):
    (root / "a" / "1.jpg").rename(root / "a\\1.jpg")
    dataset = image_list.read(written(root, "path\na\\1.jpg\na/2.jpg\n"))
    assert [image.name for image in dataset.splits["train"].images] == ["a/2.jpg", "a\\1.jpg"]


def test_paths_alone_may_have_blank_cells(root):
    dataset = image_list.read(written(root, "a/1.jpg;;\na/2.jpg;;\n"))
    assert [image.name for image in dataset.splits["train"].images] == IMAGES[:2]


def test_blank_rows_of_parquet_do_not_count(root):
    pq.write_table(pa.table({"PATH": ["a/1.jpg", None, "", "a/2.jpg", None]}), root / "images.parquet")
    assert len(image_list.read(root / "images.parquet").splits["train"]) == 2


def test_paths_alone_need_no_name(root):
    dataset = image_list.read(written(root, "\n".join(IMAGES)))
    assert [image.name for image in dataset.splits["train"].images] == IMAGES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_a_long_list_by_any_name_is_known_by_its_beginning(root, encoding):
    text = "\ufeff" * (encoding == "utf-16-be") + "path,person\n" + "".join(f"ä/{n}.jpg,{n}\n" for n in range(20_000))
    (root / "people.list").write_bytes(text.encode(encoding))
    assert detect(root / "people.list")[0] == "list"


def test_one_image_may_be_in_two_splits(root):
    text = "path,person,split\na/1.jpg,7,query\na/1.jpg,7,gallery\nb/3.jpg,7,gallery\n"
    dataset = image_list.read(written(root, text))
    assert [len(split) for split in dataset.splits.values()] == [1, 2]


def test_images_elsewhere_are_named_by_what_they_have_in_common(root):
    (root / "lists").mkdir()
    text = f"path\n../a/1.jpg\n{root}/b/3.jpg\n"
    dataset = image_list.read(written(root / "lists", text))
    assert [image.name for image in dataset.splits["train"].images] == ["a/1.jpg", "b/3.jpg"]
    assert dataset.root == root


def test_images_that_are_not_there_or_not_read_are_named(root):
    names = [f"gone/{number}.jpg" for number in range(5)]
    dataset = image_list.read(written(root, "path\na/1.jpg\nfilm.mp4\n" + "\n".join(names)))
    assert dataset.left_out == {
        "file of the list that is not there": tuple(names),
        "format that is not read: video": ("film.mp4",),
    }
    assert dataset.notes == ("caution: 5 of 7 images are not there, such as gone/0.jpg, gone/1.jpg, gone/2.jpg, ...",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "of which only path is needed, got nothing; name the columns"),
        ("image,person\na/1.jpg,3\n", "got image, person; name the columns"),
        ("path\n", "expected images in its column path, got none"),
        ("path\nno.jpg\n", r"got 1 path and none that is one \(such as no\.jpg\)"),
        ("path,person\na/1.jpg,1\n,2\n", "line 3: expected a path, got none"),
        (
            "path,person\na/1.jpg,1\na/1.jpg,2\n",
            r"line 3: expected each image once in a split, got a/1\.jpg as in line 2",
        ),
        ("path,split\na/1.jpg,testing\n", "line 2: expected a split of train, query, .*, got 'testing'"),
        ("path\na,1.jpg\n", "line 2: expected 1 column, got 2; put a path with commas in quotes"),
        ('path\n"a/1.jpg\n', "line 2: expected a row of a CSV file, got something else .* check the quotes"),
        ("a/1.jpg,anna\na/2.jpg,bob\n", r"line 1: expected the names of the columns .* got data \(a/1.jpg, anna\); wr"),
        ("Path,PATH\na/1.jpg,a/1.jpg\n", "got path, path; name the columns"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_sentence(root, text, said):
    with pytest.raises(ValueError, match=said):
        image_list.read(written(root, text))


def test_what_is_no_list_is_one_sentence(root):
    for data, said in (
        (
            b"path\na/1.jpg\n\xff\xfe.jpg",
            r"images\.csv, line 3: expected text in UTF-8, got other bytes, and ÿþ\.jpg, which",
        ),
        (
            b"path\n\x81\x8d.jpg",
            r"images\.csv, line 2: expected text in UTF-8, got the byte 0x81; save the list as UTF-8",
        ),
        ("path\na/1.jpg\n".encode("utf-16-le"), "line 1: expected text in UTF-8, got a zero byte"),
        (b"\xff\xfep", r"expected UTF-16, as its first bytes say, got something else .* save the list as UTF-8"),
    ):
        (root / "images.csv").write_bytes(data)
        with pytest.raises(ValueError, match=said):
            image_list.read(root / "images.csv")
    (root / "images.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="expected a whole Parquet file, got a damaged one"):
        image_list.read(root / "images.parquet")
    with pytest.raises(ValueError, match="found none; check data"):
        image_list.read(root / "none.csv")
    (root / "crops.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="got another file; unpack it, or check"):
        detect(root / "crops.zip")
