"""Reading images for training: decode, resize, pad and crop, mirror, erase (`reidray.training.images`), on one thread.

Pictures are noise whose spectrum falls as 1/f, as photographs' does, saved as JPEG of quality 90: 128 x 64 as
Market-1501's (5 KB each), 256 x 112 as MSMT17's. Both are made 384 x 128 and 256 x 128, with mirroring 0.5, padding 10
and erasing 0.5. The library version is what most code does: PIL decodes, torchvision's transforms (v1) resize, mirror,
pad, crop, make a float tensor and normalise it; it does not erase. Ours gives bytes, which are normalised on the
device. Judged are CPU seconds of runs in turn, at Market-1501's size; of larger pictures decoding is the most, which
all share. The floor is decoding alone, by the fastest way there is here.

The last rows prepare batches while a step of t ms runs (a sleep, as a device's work would be), and say which share of
the time the step waits for its batch; `slow storage` adds 2 ms to every read.

    python benchmarks/loading.py [--threads 1] [--output benchmarks/results/loading.json] [--quick]
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measure import Row, Timing, in_turn, peak_mb, report, set_threads
from PIL import Image
from torchvision import transforms

from reidray.arrays import Bytes, Ints
from reidray.data import augment, jpeg
from reidray.data.decode import decode
from reidray.training.images import MEAN, MEAN_PIXEL, STD, SizedImages
from reidray.training.prefetch import prefetch

# B = batch, H, W = height and width in pixels

_SETTINGS = augment.AugmentSettings(flip=0.5, pad=10, erase=0.5, erase_area=(0.02, 0.4), erase_ratio=(0.3, 3.33))
_TIMES_FASTER, _TIMES_FASTER_KEPT = 5, 15
_SIMPLEJPEG = "simplejpeg" if jpeg._decode is not None else "PIL"


class Size(NamedTuple):
    """Pictures of h x w, the network's input H x W, and how many."""

    stored: tuple[int, int]
    wanted: tuple[int, int]
    images: int


_SIZES = tuple(Size(stored, (height, 128), 256) for stored in ((128, 64), (256, 112)) for height in (384, 256))


class Pictures:
    """A packed split that lies in memory (`reidray.storage.shards.ShardedImages`); every read takes `delay` seconds."""

    def __init__(self, stored: tuple[int, int], count: int, delay: float = 0.0) -> None:
        self.datas = [jpeg_of_noise(*stored, seed) for seed in range(count)]
        self.names = [f"{index}.jpg" for index in range(count)]
        self.count = count
        self.delay = delay

    def read(self, index: int) -> bytes:
        if self.delay:
            time.sleep(self.delay)
        return self.datas[index]

    def shard_range(self, shard: int) -> tuple[int, int]:  # noqa: ARG002
        return 0, self.count

    def stream(self, shard: int) -> Iterator[tuple[int, bytes]]:  # noqa: ARG002
        return iter(enumerate(self.datas))


def jpeg_of_noise(height: int, width: int, seed: int) -> bytes:
    """Three channels that share most of their noise, as JPEG of quality 90."""
    generator = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequencies[0, 0] = 1 / max(height, width)
    shared = generator.standard_normal((height, width))
    channels = []
    for _ in range(3):
        own = generator.standard_normal((height, width))
        pixels = np.fft.ifft2(np.fft.fft2(shared + 0.5 * own) / frequencies).real
        channels.append(np.clip(128 + 32 * (pixels - pixels.mean()) / pixels.std(), 0, 255))
    file = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="few images and one round, to see that it runs")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    sizes = tuple(size._replace(images=16) for size in _SIZES) if arguments.quick else _SIZES
    rounds = 1 if arguments.quick else 7
    rows = [row for size in sizes for row in _loading(size, rounds, judged=not arguments.quick)]
    rows += [_waiting(delay, threads, quick=arguments.quick) for delay, threads in ((0.0, 1), (0.002, 1), (0.002, 4))]
    report("loading", rows, threads=arguments.threads, output=arguments.output)


# ---- images a second


def _loading(size: Size, rounds: int, *, judged: bool) -> list[Row]:
    """All of the way from bytes to crops; from kept pictures to crops; decoding alone."""
    pictures, (height, width) = Pictures(size.stored, size.images), size.wanted
    anew, kept = (_sized(pictures, size, cache_mb) for cache_mb in (0.0, 1e6))
    table = augment.draw(_SETTINGS, seed=0, epoch=0, step=0, batch_size=size.images, height=height, width=width)
    indices = np.arange(size.images)
    timings = in_turn(
        {
            "ours": partial(crops, anew, indices, table),
            "ours, PIL decodes": partial(_without_simplejpeg, anew, indices, table),
            "ours, kept": partial(crops, kept, indices, table),
            "library": partial(library, pictures.datas, library_transform(height, width)),
            "decode": partial(_decode, pictures.datas),
            "PIL decodes": partial(_pil, pictures.datas),
        },
        rounds=rounds,
    )
    peer = timings["library"]
    sizes = f"{size.stored[0]} x {size.stored[1]} to {height} x {width}, {size.images} images"
    name = "PIL, torchvision v1"
    judged = judged and size.stored == (128, 64)
    shared = {"bytes": round(float(np.mean([len(data) for data in pictures.datas]))), "decoder": _SIMPLEJPEG}
    return [
        Row(
            what="decode and augment",
            size=sizes,
            bar=f">= {_TIMES_FASTER} x {name}" if size.stored == (128, 64) else "",
            ours=timings["ours"],
            floor=(f"decoding alone, {_SIMPLEJPEG}", timings["decode"]),
            library=(name, peer),
            reached=_faster(timings["ours"], peer) >= _TIMES_FASTER if judged else None,
            notes=shared
            | _figures(timings["ours"], peer, size.images)
            | {"without_simplejpeg": _figures(timings["ours, PIL decodes"], peer, size.images)},
        ),
        Row(
            what="augment, decoded pictures kept",
            size=sizes,
            bar=f">= {_TIMES_FASTER_KEPT} x {name}" if size.stored == (128, 64) else "",
            ours=timings["ours, kept"],
            library=(name, peer),
            reached=_faster(timings["ours, kept"], peer) >= _TIMES_FASTER_KEPT if judged else None,
            notes=_figures(timings["ours, kept"], peer, size.images)
            | {"MB_kept_of_12936": round(12_936 * 3 * size.stored[0] * size.stored[1] / 1e6)},
        ),
        Row(
            what="decode",
            size=f"{size.stored[0]} x {size.stored[1]}, {size.images} images",
            ours=timings["decode"],
            library=("PIL", timings["PIL decodes"]),
            notes=shared | _figures(timings["decode"], timings["PIL decodes"], size.images),
        ),
    ]


def _faster(ours: Timing, library: Timing) -> float:
    return library.cpu_seconds / ours.cpu_seconds


def _figures(ours: Timing, library: Timing, images: int) -> dict[str, float]:
    return {
        "images_per_cpu_second": round(images / ours.cpu_seconds),
        "library_images_per_cpu_second": round(images / library.cpu_seconds),
        "cpu_times_faster": round(_faster(ours, library), 2),
    }


def _sized(pictures: Pictures, size: Size, cache_mb: float) -> SizedImages:
    height, width = size.wanted
    return SizedImages(pictures, height=height, width=width, max_pixels=10**7, cache_mb=cache_mb)  # type: ignore[arg-type]


def crops(images: SizedImages, indices: Ints, table: augment.Augmentation, batch: int = 64) -> None:
    """All images once, a batch at a time."""
    for start in range(0, len(indices), batch):
        some = slice(start, start + batch)
        images.crops(indices[some], table.rows(some), pad=_SETTINGS.pad)


def _without_simplejpeg(images: SizedImages, indices: Ints, table: augment.Augmentation) -> None:
    fast, jpeg._decode = jpeg._decode, None
    try:
        crops(images, indices, table)
    finally:
        jpeg._decode = fast


def library_transform(height: int, width: int) -> transforms.Compose:
    """The training transform of most re-identification code."""
    return transforms.Compose(
        [
            transforms.Resize((height, width), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(_SETTINGS.flip),
            transforms.Pad(_SETTINGS.pad, tuple(MEAN_PIXEL.tolist())),
            transforms.RandomCrop((height, width)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def library(datas: list[bytes], transform: transforms.Compose) -> None:
    for data in datas:
        transform(Image.open(io.BytesIO(data)).convert("RGB"))


def _decode(datas: list[bytes]) -> None:
    for data in datas:
        decode(data, name="noise", max_pixels=10**7)


def _pil(datas: list[bytes]) -> None:
    for data in datas:
        np.array(Image.open(io.BytesIO(data)).convert("RGB"))


# ---- a step that waits for its batch


def _waiting(delay: float, threads: int, *, quick: bool) -> Row:
    """The share of the time that a step waits for 64 images of 384 x 128, nothing kept, 4 batches ahead."""
    steps = (0.005, 0.02) if quick else (0.01, 0.025, 0.05, 0.1)
    batches, batch = (3, 8) if quick else (40, 64)
    size = Size((128, 64), (384, 128), batch)
    images = _sized(Pictures(size.stored, size.images, delay), size, 0.0)
    shares = {f"{1000 * step:g} ms": round(_share(images, batch, batches, step, threads), 3) for step in steps}
    return Row(
        what="share of the time that a step waits" + (", slow storage" if delay else ""),
        size=f"batches of {batch}, 384 x 128, {threads} loader thread{'s' if threads > 1 else ''}",
        peak_mb=peak_mb(prepared_batches, consume, batch, batches, threads, threads=1),
        notes={"waiting_share_by_step": shares},
    )


def _share(images: SizedImages, batch: int, batches: int, step: float, threads: int) -> float:
    waited, started = 0.0, time.perf_counter()
    iterator = batches_of(images, batch, batches, threads)
    for number in range(batches):
        asked = time.perf_counter()
        next(iterator)
        if number == 0:  # nobody can have prepared the first one
            waited, started = 0.0, time.perf_counter()
        else:
            waited += time.perf_counter() - asked
        time.sleep(step)
    return waited / (time.perf_counter() - started)


def batches_of(images: SizedImages, batch: int, batches: int, threads: int) -> Iterator[Bytes]:
    """Batches as `reidray.training.batches` prepares them."""

    def prepare(number: int) -> Bytes:
        table = augment.draw(_SETTINGS, seed=0, epoch=0, step=number, batch_size=batch, height=384, width=128)
        return images.crops(np.arange(batch), table, pad=_SETTINGS.pad)

    return prefetch(prepare, batches, depth=4, threads=threads)


def prepared_batches(batch: int, batches: int, threads: int) -> tuple[SizedImages, int, int, int]:
    """What `consume` needs; one batch is made, which compiles."""
    size = Size((128, 64), (384, 128), batch)
    images = _sized(Pictures(size.stored, size.images), size, 0.0)
    list(batches_of(images, batch, 1, 1))
    return images, batch, batches, threads


def consume(given: tuple[SizedImages, int, int, int]) -> None:
    for _ in batches_of(*given):
        time.sleep(0.01)


if __name__ == "__main__":
    main()
