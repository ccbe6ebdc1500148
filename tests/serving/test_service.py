"""The service over real HTTP: its answers are those of the model and the gallery, and bad uploads get a sentence."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from reidray.data import folder
from reidray.gallery import Gallery
from reidray.gallery.file import Made, Rows, append
from reidray.serving import app, engine
from reidray.serving.thumbnails import Thumbnails
from reidray.serving.uploads import MOST_BYTES, MOST_IMAGES
from reidray.storage.pack import pack
from tests.serving.conftest import HARMFUL
from tests.serving.service import IN_URL, TOKEN, Service, form, picture
from tests.shell_lines import ROOT


def _png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _error(body: bytes) -> str:
    """The sentence of an error, and nothing beside it."""
    told = json.loads(body)
    assert list(told) == ["error"]
    sentence = told["error"]
    assert isinstance(sentence, str)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert sentence.endswith((".", ")")), sentence
    return sentence


# --- answers ----------------------------------------------------------------------------------------------------------


def test_embed_gives_what_the_model_gives(service: Service) -> None:
    files = {f"{seed}.jpg": picture(seed) for seed in range(100, 105)}
    status, answer = service.post("/embed", files)
    assert status == 200
    assert answer["names"] == list(files)
    assert answer["model"] == service.model.id
    own = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files.values()]
    expected_ND = service.model.embed(own).features_ND
    assert answer["width"] == expected_ND.shape[1]
    np.testing.assert_allclose(np.array(answer["features"], np.float32), expected_ND, atol=1e-5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_the_bytes_of_a_file_by_themselves_are_an_image(service: Service, kind: str) -> None:
    data = picture(7, kind=kind)
    status, headers, body = service.ask("POST", "/embed", data, headers={"Accept": "application/octet-stream"})
    assert status == 200
    assert headers["x-reidray-shape"] == f"1,{service.model.width}"
    expected_ND = service.model.embed(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).features_ND
    np.testing.assert_allclose(np.frombuffer(body, "<f4")[None], expected_ND, atol=1e-5)


def test_search_gives_what_the_gallery_gives(service: Service) -> None:
    for query, wanted, words in (
        ("k=5", {"k": 5}, "all cameras"),
        ("k=4&camera=1", {"k": 4, "cameras": ["1"]}, "one camera"),
        (f"k=100&camera=c0&camera={quote(HARMFUL[1])}", {"k": 100, "cameras": ["c0", HARMFUL[1]]}, "two cameras"),
        ("k=3&not_camera=c0", {"k": 3, "not_cameras": ["c0"]}, "all but one"),
        ("", {"k": 10}, "the default"),
    ):
        data = picture(3)
        status, _, body = service.ask("POST", f"/search?{query}", data)
        assert status == 200, words
        answer = json.loads(body)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        expected = service.gallery.search(pixels, **wanted)
        assert [result["name"] for result in answer["results"]] == [match.name for match in expected], words
        assert [result["camera"] for result in answer["results"]] == [match.camera for match in expected], words
        assert [result["rank"] for result in answer["results"]] == list(range(1, len(expected) + 1))
        found = [result["similarity"] for result in answer["results"]]
        np.testing.assert_allclose(found, [match.similarity for match in expected], atol=1e-5)


def test_no_answer_tells_where_files_lie_on_the_machine(service: Service) -> None:
    _, _, found = service.ask("POST", "/search?k=100", picture(3))
    _, _, about = service.ask("GET", "/about")
    _, _, metrics = service.ask("GET", "/metrics")
    for body in (found, about, metrics):
        assert str(service.folder).encode() not in body
        assert b"/tmp" not in body


def test_the_page_is_told_of_the_gallery(service: Service) -> None:
    told = json.loads(service.ask("GET", "/about")[2])
    assert told["gallery"] == "people.parquet"
    assert told["images"] == len(service.gallery)
    counts = Counter(service.gallery.cameras)
    assert len(counts) == 3
    assert {one["camera"]: one["images"] for one in told["cameras"]} == counts


def test_a_thumbnail_is_the_image_of_the_row_encoded_anew(service: Service) -> None:
    for row in (0, 5, len(service.gallery) - 1):
        status, headers, body = service.ask("GET", f"/image/{row}")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        file = service.gallery.image(row).path
        assert file is not None
        assert body != file.read_bytes()
        got = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), np.int32)
        own = np.asarray(Image.open(file).convert("RGB"), np.int32)
        assert got.shape == own.shape
        assert np.abs(got - own).mean() < 8


@pytest.mark.parametrize(
    "path",
    [
        "/image/99999",
        "/image/-1",
        "/image/",
        "/image/ROW",
        "/image/%D9%A3",
        "/image/" + 5000 * "9",
        "/5",
        "/image/../people.parquet",
        "/image/%2e%2e%2fetc%2fpasswd",
        "/image/0.jpg",
    ],
)
def test_only_rows_of_the_gallery_are_images(service: Service, path: str) -> None:
    status, _, body = service.ask("GET", path)
    assert status == 404
    _error(body)


def test_a_gallery_cannot_name_files_outside_of_its_folder(service: Service, tmp_path: Path) -> None:
    """Nor anything that is no image: galleries may come from anybody."""
    (tmp_path / "outside.jpg").write_bytes(picture(1))
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "text.jpg").write_text("no image")
    (tmp_path / "within" / "good.jpg").write_bytes(picture(1))
    names = [
        "../outside.jpg",
        str(tmp_path / "outside.jpg"),
        "a/../../outside.jpg",
        "text.jpg",
        "gone.jpg",
        "",
        ".",
        "..",
        "good.jpg",
    ]
    made = Made(service.model.id, service.model.width, "method", "run")
    features_ND = np.eye(len(names), service.model.width, dtype=np.float32)
    rows = Rows(names, [str(tmp_path / "within")] * len(names), [None] * len(names), features_ND)
    append(tmp_path / "foreign.parquet", made, rows)
    thumbnails = Thumbnails(Gallery(tmp_path / "foreign.parquet"), service.model.settings)
    assert [thumbnails.jpeg(row) is not None for row in range(len(names))] == [False] * 8 + [True]


def test_packed_images_have_thumbnails_too(tiny_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = tiny_settings("packed")
    packed = tmp_path / "crops-packed"
    (tmp_path / "crops").mkdir()
    for number in range(3):
        (tmp_path / "crops" / f"{number}.png").write_bytes(picture(number, kind="PNG"))
    pack(folder.read(tmp_path / "crops"), packed, images_per_shard=2, max_pixels=10**6, max_bytes=10**6)
    features_ND = np.eye(4, 8, dtype=np.float32)
    place = str(packed / "train")
    rows = Rows(["0.png", "1.png", "2.png", "3.png"], [place] * 4, [None] * 4, features_ND)
    append(tmp_path / "people.parquet", Made("m" * 64, 8, "method", "run"), rows)
    thumbnails = Thumbnails(Gallery(tmp_path / "people.parquet"), settings)
    for number in range(3):
        jpeg = thumbnails.jpeg(number)
        assert jpeg is not None
        got = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), np.float64)
        own = Image.open(io.BytesIO(picture(number, kind="PNG"))).resize((got.shape[1], got.shape[0]))
        assert np.abs(got - np.asarray(own, np.float64)).mean() < 12
    assert thumbnails.jpeg(3) is None, "the pack has no such image"


def test_the_program_of_the_documents_works(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "serving.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = program.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{service.port}")
    program = program.replace("the token that it printed", TOKEN)
    (tmp_path / "photo.jpg").write_bytes(picture(4))
    monkeypatch.chdir(tmp_path)
    exec(compile(program + "session.close()", "docs/serving.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 1.000 c1/04.jpg"
    assert len(said) == 5 + 2


def test_clients_at_once_all_get_their_own_answers(service: Service) -> None:
    def ask(number: int) -> tuple[int, list[str]]:
        status, _, body = service.ask("POST", "/search?k=3", picture(number % 5))
        return status, [result["name"] for result in json.loads(body)["results"]]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(40)))
    for seed in range(5):
        pixels = np.asarray(Image.open(io.BytesIO(picture(seed))).convert("RGB"))
        expected = (200, [match.name for match in service.gallery.search(pixels, 3)])
        assert answers[seed::5] == [expected] * 8


def test_clients_share_forward_passes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    come, sizes = threading.Semaphore(0), list[int]()
    read, forward = app.read_uploads, service.model.embed_sized

    async def counted(*given: Any, **options: Any) -> Any:
        uploads = await read(*given, **options)
        come.release()
        return uploads

    def held(sized: Any) -> Any:
        """The first pass ends when the images of all others are there."""
        if not sizes:
            assert all(come.acquire(timeout=20) for _ in range(12))
            time.sleep(0.2)
        sizes.append(len(sized))
        return forward(sized)

    monkeypatch.setattr(app, "read_uploads", counted)
    monkeypatch.setattr(service.model, "embed_sized", held)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda seed: service.ask("POST", "/embed", picture(seed)), range(12)))
    assert {status for status, _, _ in answers} == {200}
    assert sum(sizes) == 12
    assert len(sizes) < 6


def test_a_bad_image_fails_its_own_request_and_no_other_of_the_batch(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, sizes = threading.Semaphore(0), list[int]()
    read, decode, forward = app.read_uploads, engine.decode, service.model.embed_sized

    async def counted(*given: Any, **options: Any) -> Any:
        uploads = await read(*given, **options)
        come.release()
        return uploads

    def held(*given: Any, **options: Any) -> Any:
        """The first batch begins when all others are there."""
        if not sizes:
            sizes.append(0)
            assert all(come.acquire(timeout=20) for _ in range(9))
            time.sleep(0.2)
        return decode(*given, **options)

    def noted(sized: Any) -> Any:
        sizes.append(len(sized))
        return forward(sized)

    monkeypatch.setattr(app, "read_uploads", counted)
    monkeypatch.setattr(engine, "decode", held)
    monkeypatch.setattr(service.model, "embed_sized", noted)
    bodies = [b"no image" if seed % 3 == 1 else picture(seed) for seed in range(9)]
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda body: service.ask("POST", "/embed", body), bodies))
    assert [status for status, _, _ in answers] == [200, 400, 200] * 3
    assert sum(sizes) == 6, "bad images take no room in a forward pass"
    assert len(sizes) < 5
    for seed in (0, 2, 3):
        pixels = np.asarray(Image.open(io.BytesIO(bodies[seed])).convert("RGB"))
        features = json.loads(answers[seed][2])["features"]
        np.testing.assert_allclose(np.array(features, np.float32), service.model.embed(pixels).features_ND, atol=1e-5)


def test_a_gallery_that_is_gone_gets_a_sentence_until_it_is_back(service: Service) -> None:
    away = service.gallery.path.with_suffix(".away")
    service.gallery.path.rename(away)
    try:
        for method, path, body in (("POST", "/search", picture(1)), ("GET", "/about", b"")):
            status, _, answer = service.ask(method, path, body)
            assert status == 503
            assert _error(answer) == "the gallery cannot be searched now; the log of the service says why."
        assert service.ask("POST", "/embed", picture(1))[0] == 200
    finally:
        away.rename(service.gallery.path)
    assert service.ask("POST", "/search", picture(1))[0] == 200


def test_figures_count_requests_errors_and_images(service: Service) -> None:
    def figures() -> dict[str, float]:
        status, headers, body = service.ask("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    before = figures()
    service.post("/embed", {"a.jpg": picture(1), "b.jpg": picture(2)})
    service.ask("POST", "/embed", b"no image")
    service.ask("GET", "/no/such/place")
    after = figures()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert more("reidray_serve_images_total") == 2
    assert more('reidray_serve_requests_total{route="/embed",status="200"}') == 1
    assert more('reidray_serve_requests_total{route="/embed",status="400"}') == 1
    assert more('reidray_serve_errors_total{route="/embed"}') == 1
    assert more('reidray_serve_seconds_count{route="/embed"}') == 2
    assert more('reidray_serve_requests_total{route="other",status="404"}') == 1
    assert after["reidray_serve_gallery_images"] == len(service.gallery)


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "got nothing"),
        (b"%PDF-1.7 no image", 400, "expected a JPEG"),
        (b"<script>alert(1)</script>", 400, "expected a JPEG"),
        (picture(1, size=(200, 400))[:-2000], 400, "cut short"),
        (_png_that_claims(50_000, 50_000), 413, "pixels"),
        (_png_that_claims(8_000, 8_000), 413, "pixels"),
        (_png_that_claims(100, 100), 400, "cut short"),
    ],
    ids=["nothing", "a PDF", "a script", "a JPEG cut short", "a bomb", "too many pixels", "a PNG without pixels"],
)
@pytest.mark.parametrize("path", ["/embed", "/search"])
def test_what_is_no_usable_image_is_refused_in_a_sentence(
    service: Service, path: str, data: bytes, status: int, words: str
) -> None:
    got, _, body = service.ask("POST", path, data)
    assert got == status
    assert words in _error(body)
    got, told = service.post(path, {"<script>.jpg": data})
    assert got == status
    if data:
        assert told["error"].startswith("<script>.jpg: ")


def test_one_bad_image_of_several_is_named(service: Service) -> None:
    status, told = service.post("/embed", {"good.jpg": picture(1), "bad.jpg": b"no image", "fine.jpg": picture(2)})
    assert status == 400
    assert told["error"].startswith("bad.jpg: ")


def test_names_come_back_as_they_were_sent_and_not_without_end(service: Service) -> None:
    names = ["<b>'&.jpg", "ä \N{RIGHT-TO-LEFT OVERRIDE}.jpg", "../../etc/passwd", "x" * 4000]
    status, answer = service.post("/embed", {name: picture(1) for name in names})
    assert status == 200
    assert answer["names"] == [*names[:3], "x" * 255]


def test_too_many_files_are_refused(service: Service) -> None:
    status, told = service.post("/embed", {f"{number}": b"x" for number in range(MOST_IMAGES + 1)})
    assert (status, told["error"]) == (413, f"expected at most {MOST_IMAGES} images in a request, got more.")
    status, told = service.post("/search", {"a": picture(1), "b": picture(2)})
    assert (status, told["error"]) == (413, "expected at most 1 image, got more.")


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"--limit--\r\n", "multipart/form-data; boundary=limit", "without files"),
        (b"anything", "multipart/form-data", "boundary"),
        (b"no boundary in it", "multipart/form-data; boundary=limit", "cannot be read"),
        (
            b'--limit\r\nContent-Disposition: form-data; name="k"\r\n\r\n5\r\n--limit--\r\n',
            "multipart/form-data; boundary=limit",
            "a field without a file name",
        ),
    ],
)
def test_forms_that_hold_no_files_are_refused(service: Service, body: bytes, kind: str, words: str) -> None:
    status, _, answer = service.ask("POST", "/embed", body, headers={"Content-Type": kind})
    assert status == 400
    assert words in _error(answer)


def test_a_hundred_megabytes_are_refused_before_they_are_sent(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.putrequest("POST", "/embed")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "100000000")
    connection.endheaders()  # and nothing after them
    answer = connection.getresponse()
    assert answer.status == 413
    assert "expected at most 64 MB in a request, got 100 MB" in _error(answer.read())
    connection.close()


@pytest.mark.parametrize("form_data", [False, True], ids=["the body", "a form"])
def test_a_body_whose_length_nobody_told_is_read_up_to_the_limit(service: Service, form_data: bool) -> None:
    """And the client, which sends all of it first, gets to read the sentence."""
    head, kind = form({"a.jpg": b""})
    piece = b"\0" * 1_000_000

    def pieces() -> Any:
        if form_data:
            yield head[: -len(b"\r\n--limit--\r\n")]
        for _ in range(MOST_BYTES // len(piece) + 6):
            yield piece

    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}", **({"Content-Type": kind} if form_data else {})}
    connection.request("POST", "/embed", pieces(), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert "expected at most 64 MB" in _error(answer.read())
    connection.close()


def test_a_client_that_goes_in_the_middle_harms_nobody(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as own:
        own.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nAuthorization: Bearer " + TOKEN.encode()
        )
        own.sendall(b"\r\n\r\nhalf of it")
    assert service.ask("POST", "/embed", picture(1))[0] == 200


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/search?k=0", "expected k as a number from 1 to 1000, got '0'."),
        ("/search?k=ten", "got 'ten'."),
        ("/search?k=1&k=2", "expected k once"),
        ("/search?k=99999999999999999999", "expected k as a number"),
        ("/search?camera=%3Cscript%3E", "there is no camera '<script>' in the gallery"),
        ("/search?cam=1", "unknown parameter 'cam': /search takes k, camera, not_camera."),
        ("/embed?k=1", "unknown parameter 'k': /embed takes none."),
    ],
)
def test_parameters_that_make_no_sense_are_refused(service: Service, path: str, words: str) -> None:
    status, _, body = service.ask("POST", path, picture(1))
    assert status == 400
    assert words in _error(body)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/embed"), ("PUT", "/search"), ("POST", "/about"), ("DELETE", "/")]
)
def test_a_wrong_method_is_refused_with_the_right_one(service: Service, method: str, path: str) -> None:
    status, headers, body = service.ask(method, path)
    assert status == 405
    assert f"does not take {method}: use {headers['allow']}." in _error(body)


def test_what_can_be_got_has_a_head(service: Service) -> None:
    for path in ("/", "/about", "/image/0"):
        status, headers, body = service.ask("HEAD", path)
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
    assert service.ask("HEAD", "/embed")[0] == 405


def test_what_fails_for_no_foreseen_reason_gets_a_sentence_too(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("/tmp/secret")

    monkeypatch.setattr(service.model, "embed_sized", broken)
    status, _, body = service.ask("POST", "/embed", picture(1))
    assert (status, _error(body)) == (500, "the service failed to answer; its log says why.")
    until = time.monotonic() + 20  # the answer is on its way before it is logged
    while "/tmp/secret" not in caplog.text and time.monotonic() < until:
        time.sleep(0.01)
    assert "/tmp/secret" in caplog.text


def test_connections_are_read_by_compiled_code() -> None:
    """The service asks for uvicorn's standard extra, which is what makes it choose these."""
    assert AutoHTTPProtocol.__name__ == "HttpToolsProtocol"
    assert auto_loop_factory().__module__.startswith("uvloop")


def test_an_unknown_address_is_refused(service: Service) -> None:
    status, _, body = service.ask("GET", "/<script>")
    assert status == 404
    assert "there is nothing at /<script>" in _error(body)


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/page.js", "/about", "/metrics", "/image/0", "/embed", "/search", "/nowhere"])
@pytest.mark.parametrize("token", [None, "another-token-of-20-letters", "", "\u00fc"])
def test_nothing_but_health_answers_without_the_token(service: Service, path: str, token: str | None) -> None:
    method = "POST" if path in ("/embed", "/search") else "GET"
    status, headers, body = service.ask(method, path, picture(1) if method == "POST" else b"", token=token)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert "expected the token of this service" in _error(body)


def test_health_answers_everybody_and_says_nothing_else(service: Service) -> None:
    assert service.ask("GET", "/health", token=None)[::2] == (200, b'{"status":"ok"}')


def test_a_large_body_without_the_token_is_not_kept(service: Service) -> None:
    status, headers, _ = service.ask("POST", "/embed", b"\0" * 3_000_000, token=None)
    assert (status, headers["connection"]) == (401, "close")


def test_the_address_with_the_token_gives_a_browser_its_cookie(service: Service) -> None:
    status, headers, _ = service.ask("GET", f"/?token={IN_URL}", token=None)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    own = {"Cookie": f'other="a;b"; strange; {cookie.split(";")[0]}'}
    assert service.ask("GET", "/about", token=None, headers=own)[0] == 200
    assert service.ask("POST", "/search", picture(1), token=None, headers=own)[0] == 200
    assert service.ask("GET", "/?token=wrong", token=None)[0] == 401
    assert service.ask("POST", f"/embed?token={IN_URL}", picture(1), token=None)[0] == 400


def test_a_page_of_another_origin_cannot_use_the_cookie(service: Service) -> None:
    cookie = {"Cookie": f"tests={TOKEN}"}
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ):
        assert service.ask("POST", "/search", picture(1), token=None, headers={**cookie, **headers})[0] == 403
    own = {"Origin": f"http://127.0.0.1:{service.port}", "Sec-Fetch-Site": "same-origin"}
    assert service.ask("POST", "/search", picture(1), token=None, headers={**cookie, **own})[0] == 200


def test_every_answer_has_the_headers_that_make_a_page_safe(service: Service) -> None:
    for path in ("/", "/page.js", "/about", "/nowhere", "/image/0"):
        _, headers, _ = service.ask("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_page_has_no_script_of_its_own_and_asks_no_other_machine(service: Service) -> None:
    page = service.ask("GET", "/")[2].decode()
    assert re.findall(r"<script\b[^>]*>", page) == ['<script src="/page.js" defer>']
    assert not re.search(r"<style|\son\w+=|style=", page)
    for path in ("/", "/page.js", "/page.css"):
        assert not re.search(rb"https?://", service.ask("GET", path)[2])
    script = service.ask("GET", "/page.js")[2]
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


# --- a gallery that changes -------------------------------------------------------------------------------------------


def test_images_that_are_added_are_found_without_a_restart(service: Service) -> None:
    from tests.serving.conftest import add

    before = len(service.gallery)
    more = service.folder / "more" / "c1"
    more.mkdir(parents=True)
    (more / "new.jpg").write_bytes(picture(777))
    stop = threading.Event()
    failures: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            status = service.ask("POST", "/search?k=2", picture(3))[0]
            if status != 200:
                failures.append(status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        add(service.gallery, service.folder / "more")
    finally:
        stop.set()
        thread.join()
    assert failures == []
    best = json.loads(service.ask("POST", "/search?k=1", picture(777))[2])["results"][0]
    assert (best["name"], best["row"]) == ("c1/new.jpg", before)
    assert service.ask("GET", best["image"])[0] == 200
    (more / "new.jpg").unlink()
    assert service.ask("GET", best["image"])[0] == 404
