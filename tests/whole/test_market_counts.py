"""A tree with Market-1501's file names and counts, of small noise images, through the whole training job."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

JOBS = Path(__file__).resolve().parents[2] / "jobs"


def _write(folder: Path, persons: list[int], generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number, person in enumerate(persons):
        pixels = generator.integers(0, 255, (16, 8, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).resize((32, 64)).save(data, "JPEG")
        who = "-1" if person < 0 else f"{person:04d}"
        (folder / f"{who}_c{(number + number // 750) % 6 + 1}s1_{number:06d}_00.jpg").write_bytes(data.getvalue())


@pytest.mark.slow
def test_the_training_job_reads_market1501s_official_counts(tmp_path: Path) -> None:
    root, generator = tmp_path / "Market-1501", np.random.default_rng(0)
    train, test = range(2, 2 + 751), range(800, 800 + 750)
    _write(root / "bounding_box_train", [train[n % 751] for n in range(12_936)], generator)
    _write(root / "query", [test[n % 750] for n in range(3_368)], generator)
    gallery = [test[n % 750] for n in range(13_115)] + [0] * 2_798 + [-1] * 3_819
    _write(root / "bounding_box_test", gallery, generator)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"x")
    words = ["data.dataset=market1501", f"data.root={root}", f"run.dir={tmp_path / 'run'}", "--workers", "0"]
    few = ["train.epochs=1", "train.steps=1", "evaluate.ranked_lists=0", "method.labels=ground_truth"]
    subprocess.run([sys.executable, str(JOBS / "train.py"), *words, *few], check=True, capture_output=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    for count in (
        "12,936 train images, 751 train persons",
        "3,368 query images, 750 query persons",
        "15,913 gallery images, 750 gallery persons, 2,798 distractors, 3,819 junk",
    ):
        assert count in log, log[:600]
    assert "packed images: train 12,936, query 3,368, gallery 15,913" in log
