"""No picture of a real person is in git: every picture there is one that reidray drew, and is listed here."""

from __future__ import annotations

import re
import subprocess

import pytest
from safetensors import safe_open

from reidray.features import build_embedder
from tests.shell_lines import ROOT

DRAWN = {  # pictures, and what they show: all people in them are drawn by reidray.data.drawn
    "docs/images/curves.png": "curves of a run on drawn pedestrians",
    "docs/images/drawn_hard.png": "pedestrians of configs/drawn_hard.yaml",
    "docs/images/part_masks.png": "part masks over drawn pedestrians",
    "docs/images/ranked_lists.png": "ranked lists of drawn pedestrians",
    "docs/images/report.png": "the page of a run on drawn pedestrians",
    "docs/images/scwm_against_cluster_contrast.png": "curves of runs on drawn pedestrians",
    "docs/images/timeline.png": "the timeline of an epoch",
    "reidray/serving/page/icon.svg": "the service's icon",
}
WEIGHTS = {"reidray/weights/small.safetensors", "reidray/weights/small_early.safetensors"}

_PICTURE = re.compile(
    rb"\A(\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP|\0\0..jP|....ftyp)", re.DOTALL
)
_WITHIN = re.compile(
    rb"(data:(image|video)/(?!svg)[a-z+.-]+;base64,"  # in a page
    rb"|['\"](?-i:iVBORw0KGgo|/9j/|R0lGOD|UklGR))[A-Za-z0-9+/]{64}",  # in a notebook
    re.IGNORECASE,
)


def in_git() -> list[str]:
    """Files that are in git, or would be with the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout: there is no git to ask")
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def kind(name: str, content: bytes) -> str:
    """What a file is: picture, text or binary."""
    if _PICTURE.match(content) or name.endswith(".svg") or _WITHIN.search(content):
        return "picture"
    return "binary" if b"\0" in content else "text"


def test_every_picture_in_git_is_listed_and_nothing_else_could_hold_one() -> None:
    found = {name: kind(name, (ROOT / name).read_bytes()) for name in in_git()}
    assert {name for name, what in found.items() if what == "picture"} == set(DRAWN)
    assert {name for name, what in found.items() if what == "binary"} == WEIGHTS


def test_weights_hold_tensors_of_the_network_alone() -> None:
    network = build_embedder(
        backbone="small", pooling="avg", num_parts=0, part_pooling="gap", embedding_layer="drop", seed=0
    ).state_dict()
    for name in WEIGHTS:
        with safe_open(ROOT / name, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                tensor = network[key]
                assert tuple(file.get_slice(key).get_shape()) == tuple(tensor.shape), key


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "picture"),
        ("photo.txt", b"\xff\xd8\xff\xe0\0\x10JFIF", "picture"),  # told by the content, not by the name
        ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "picture"),
        ("clip", b"\0\0\0\x20ftypisom", "picture"),
        ("page.html", b'<img src="data:image/jpeg;base64,' + 64 * b"A" + b'">', "picture"),
        ("page.html", b'<img src="data:image/jpeg;base64,...">', "text"),
        ("a.ipynb", b'"image/png": "iVBORw0KGgo' + 64 * b"A" + b'"', "picture"),
        ("crops.npz", b"PK\x03\x04\0\0", "binary"),
        ("crops.tar", b"a.jpg" + 100 * b"\0", "binary"),
        ("a.py", b"import os", "text"),
    ],
)
def test_a_picture_is_told_by_its_content(name: str, content: bytes, what: str) -> None:
    assert kind(name, content) == what
