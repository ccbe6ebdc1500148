"""Images a second of the HTTP service beside plain PyTorch batches of the same images and network.

Clients, server and forward passes share the cores. Both sides begin with the bytes of JPEG files and end with float32
features: plain batches decode, resize and forward images in one process, one batch after another; the service gets them
over HTTP on 127.0.0.1, in forms of 16 images or one by one, from clients at once, in a process of its own. The clients
are connections of one thread that sends bytes made before and reads of an answer's head only its length: it is the
service that is measured, and a client that waits for the processor would keep it waiting. Plain batches have 16 and 64
images, with one thread and with all; the fastest of these counts. The network is not trained, which costs the same.

    python benchmarks/serving.py [--threads 2] [--output benchmarks/results/serving.json] [--quick]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import Row, in_turn, report, set_threads
from PIL import Image

from reidray.config import Settings
from reidray.data.decode import decode
from reidray.data.resize import resize_into
from reidray.gallery import Gallery
from reidray.inference import Model
from reidray.training.loop import new_model

_TOKEN = "a-token-of-the-benchmark"
_BATCHES = (16, 64)
_BAR = 0.8


class Size(NamedTuple):
    """A network, and how many images a round."""

    what: str
    backbone: str
    height: int
    width: int
    images: int


class Load(NamedTuple):
    """How clients ask."""

    what: str
    clients: int
    a_request: int
    has_bar: bool


SIZES = (
    Size("small network, 96x48", "small", 96, 48, 768),
    Size("small network, 256x128", "small", 256, 128, 256),
    Size("ResNet-50, 256x128", "resnet50", 256, 128, 64),
)
LOADS = (Load("8 clients, 16 images a request", 8, 16, True), Load("20 clients, an image a request", 20, 1, False))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="the first network, two rounds")
    options = parser.parse_args()
    set_threads(options.threads)
    rows: list[Row] = []
    for size in [SIZES[0]._replace(images=512)] if options.quick else SIZES:
        rows += measured(size, options.threads, 2 if options.quick else options.rounds)
    report("serving", rows, threads=options.threads, output=options.output)


def measured(size: Size, threads: int, rounds: int) -> list[Row]:
    """A row for each way of asking."""
    files = [_jpeg(seed) for seed in range(size.images)]
    model = _model(size)
    plain_ones: dict[str, Callable[[], Any]] = {
        f"plain batches of {batch}, threads: {count}": partial(_plain, model, files, count, batch)
        for count in sorted({1, threads})
        for batch in _BATCHES
    }
    with _server(size, threads) as (port, cpu_seconds):
        asked = {load.what: _asking(port, load, files) for load in LOADS}
        candidates = {**plain_ones, **asked}
        expected = _plain(model, files, 1, _BATCHES[0])
        for what, candidate in candidates.items():
            assert np.abs(candidate() - expected).max() < 1e-4, f"{what}: another result"
        times = in_turn(candidates, rounds=rounds, clock=lambda: time.process_time() + cpu_seconds())
    rows = []
    for load in LOADS:
        name = min(plain_ones, key=lambda name: times[name].seconds)
        ours, plain = times[load.what], times[name]
        ratio = plain.seconds / ours.seconds
        rows.append(
            Row(
                what=f"{load.what}: {size.what}",
                size=f"{size.images} JPEG files of 64x128",
                bar=f"images/s >= {_BAR} of plain batches" if load.has_bar else "",
                ours=ours,
                floor=(name, plain),
                reached=ratio >= _BAR if load.has_bar else None,
                notes={
                    "images a second": round(size.images / ours.seconds, 1),
                    **{name: round(size.images / times[name].seconds, 1) for name in plain_ones},
                    "ratio to the fastest": round(ratio, 3),
                    "CPU-seconds, plain / service": round(plain.cpu_seconds / ours.cpu_seconds, 3),
                },
            )
        )
        print(rows[-1].what, rows[-1].notes, flush=True)
    return rows


def _model(size: Size) -> Model:
    settings = Settings.model_validate(
        {
            "data": {"height": size.height, "width": size.width},
            "model": {"backbone": size.backbone, "weights": "none"},
            "run": {"device": "cpu"},
        }
    )
    return Model(new_model(settings), settings, "benchmark")


def _jpeg(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).resize((64, 128))
    noisy = np.clip(np.asarray(colours, np.float32) + rng.normal(0, 6, (128, 64, 3)), 0, 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(noisy).save(written, "JPEG", quality=90)
    return written.getvalue()


def _plain(model: Model, files: list[bytes], threads: int, batch: int) -> Any:
    torch.set_num_threads(threads)
    data = model.settings.data
    rows = []
    for start in range(0, len(files), batch):
        piece = files[start : start + batch]
        sized_BHW3 = np.empty((len(piece), data.height, data.width, 3), np.uint8)
        for file, sized_HW3 in zip(piece, sized_BHW3, strict=True):
            resize_into(decode(file, name="image", max_pixels=10**7), sized_HW3)
        rows.append(model.embed_sized(sized_BHW3))
    return np.concatenate(rows)


def _asking(port: int, load: Load, files: list[bytes]) -> Callable[[], Any]:
    """Asks for all images, and gives their features in order; each client keeps its connection for a round."""
    requests = [_request(files[start : start + load.a_request]) for start in range(0, len(files), load.a_request)]

    def round_of_all() -> Any:
        answers = [b""] * len(requests)
        still = iter(enumerate(requests))
        with selectors.DefaultSelector() as clients:
            for number, request in islice(still, load.clients):
                client = socket.create_connection(("127.0.0.1", port), timeout=600)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(request)
                clients.register(client, selectors.EVENT_READ, number)
            while clients.get_map():
                for (client, _, _, number), _ in clients.select():
                    read = client.recv(1 << 20)
                    assert read, "the service closed the connection"
                    answers[number] += read
                    if not _is_whole(answers[number]):
                        continue
                    number, request = next(still, (-1, b""))
                    if request:
                        clients.modify(client, selectors.EVENT_READ, number)
                        client.sendall(request)
                    else:
                        clients.unregister(client)
                        client.close()
        return np.concatenate([np.frombuffer(answer.partition(b"\r\n\r\n")[2], "<f4") for answer in answers])

    return lambda: round_of_all().reshape(len(files), -1)


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 200 "), answer
    assert length, head
    return len(body) == int(length[1])


def _request(files: list[bytes]) -> bytes:
    """All that a client sends for these images."""
    lines = [
        "POST /embed HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {_TOKEN}",
        "Accept: application/octet-stream",
    ]
    body = files[0]
    if len(files) > 1:
        lines.append("Content-Type: multipart/form-data; boundary=limit")
        head = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        body = b"".join([*(head + file + b"\r\n" for file in files), b"--limit--\r\n"])
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def _server(size: Size, threads: int) -> Iterator[tuple[int, Callable[[], float]]]:
    """A server in a fresh process: its port, and its CPU-seconds so far."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(send, size, threads), daemon=True)
    process.start()
    try:
        yield receive.recv(), lambda: _cpu_seconds(process.pid or 0)
    finally:
        process.terminate()
        process.join()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100.0  # man 5 proc: utime and stime, in ticks


def _serve(send: Any, size: Size, threads: int) -> None:
    from reidray.serving import LocalEngine, make_app
    from reidray.serving.server import listening, serve

    set_threads(threads)
    model = _model(size)
    with TemporaryDirectory() as place:
        gallery = Gallery(Path(place) / "none.parquet", model)
        engine = LocalEngine(model, gallery, threads=threads)
        engine.warm()
        own = listening("127.0.0.1", 0)
        send.send(own.getsockname()[1])
        serve(make_app(engine, gallery, model.settings, token=_TOKEN), own)


if __name__ == "__main__":
    main()
