"""data.pattern: templates and regular expressions over the path of an image."""

import pytest

from reidray.data.path_pattern import compiled


@pytest.mark.parametrize(
    ("pattern", "path", "told"),
    [
        ("{camera}/{person}/{}", "cam01/person01/a.jpg", {"camera": "cam01", "person": "person01"}),
        ("{camera}/{person}/{}", "cam01/person01/more/a.jpg", None),
        ("{camera}/{person}/**", "cam01/person01/more/a.jpg", {"camera": "cam01", "person": "person01"}),
        ("**/{person}/{}", "a/b/c/person01/x.png", {"person": "person01"}),
        ("{person}_{camera}_{}", "0001_c2_f0046182.jpg", {"person": "0001", "camera": "c2"}),
        ("{person}_{camera}", "0001_c2.jpg.jpg", {"person": "0001", "camera": "c2"}),
        ("{camera}/{camera}_{person}_{}", "cam01/cam01_anna_1.jpg", {"camera": "cam01", "person": "anna"}),
        ("{camera}/{camera}_{person}_{}", "cam01/cam02_anna_1.jpg", None),
        ("{person}/{camera}/{tracklet}/*.png", "7/1/12/0.png", {"person": "7", "camera": "1", "tracklet": "12"}),
        ("{person}/{camera}/{tracklet}/*.png", "7/1/12/0.jpg", None),
        ("c{camera} ({}).jpg", "c3 (81).jpg", {"camera": "3"}),
        ("cam.{camera}/{}", "camx1/a.jpg", None),  # a point is a point
        (r"(?P<person>\d+)_c(?P<camera>\d+)", "any/0004_c7s1.jpg", {"person": "0004", "camera": "7"}),
        (r"(?P<person>\d+)-(?:c(?P<camera>\d+))?", "4-x.jpg", {"person": "4"}),
        ("{camera}/{person}/{} | {camera}/{}_{person}_{}", "cam1/bob/a.jpg", {"camera": "cam1", "person": "bob"}),
        ("{camera}/{person}/{} | {camera}/{}_{person}_{}", "cam1/x_bob_a.jpg", {"camera": "cam1", "person": "bob"}),
    ],
)
def test_what_a_path_tells(pattern, path, told):
    assert compiled(pattern).match(path) == told


def test_it_knows_what_it_may_tell():
    assert compiled("{camera}/{} | {person}_{}").fields == {"camera", "person"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{camera}/{who}/{}", r"expected \{person\}, \{camera\}, \{tracklet\} or \{\}, got '\{who\}'; for example"),
        ("{camera/{}", "got '{'"),
        ("{}/{}", "expected some of .* got none of them"),
        ("", "got none of them"),
        (r"(?P<id>\d+)", r"got \{id\}"),
        (r"(?P<person>\d+", "is no regular expression"),
    ],
)
def test_a_pattern_that_tells_nothing_is_one_sentence(pattern, said):
    with pytest.raises(ValueError, match=said):
        compiled(pattern)
