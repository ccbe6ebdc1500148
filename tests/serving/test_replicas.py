"""Replicas on Ray Serve under load: one is killed meanwhile, and no answer is lost or wrong.

    python -m pytest -m slow tests/serving/test_replicas.py -s

20 clients for 60 seconds, or what LOAD_CLIENTS and LOAD_SECONDS say.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import pytest
from PIL import Image

from reidray.gallery import Gallery
from reidray.inference import load
from reidray.storage.checkpoints import Checkpoint, CheckpointStore
from tests.serving.service import TOKEN, picture, tiny_model
from tests.shell_lines import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.ray]
_CLIENTS, _SECONDS = int(os.environ.get("LOAD_CLIENTS", "20")), float(os.environ.get("LOAD_SECONDS", "60"))
_IMAGES = 40


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    place = tmp_path_factory.mktemp("replicas")
    model = tiny_model(place)
    store = CheckpointStore(place / "run" / "checkpoints", keep=1)
    store.save(Checkpoint(1, dict(model.network.state_dict()), {}, [], {}, model.settings.model_dump(mode="json")))
    store.close()
    (place / "crops").mkdir()
    for number in range(_IMAGES):
        (place / "crops" / f"{number:02}.jpg").write_bytes(picture(number))
    own = Gallery(place / "people.parquet", load(place / "run"))
    own.add(place / "crops")
    return own


@pytest.fixture
def served(gallery: Gallery) -> Iterator[tuple[int, int]]:
    """The command with two replicas: its port, and its process id."""
    words = ["browse", "--gallery", str(gallery.path), "--port", "0", "--token", TOKEN, "--replicas", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from reidray.commands import main; main(sys.argv[1:])", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("open http://127.0.0.1:"), line
    yield int(line.split(":")[2].split("/")[0]), process.pid
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def _replicas(driver: int) -> list[int]:
    """Process ids of a command's replicas: Ray names its processes by what they do."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if status.read_bytes().startswith(f"ray::ServeReplica:reidray-{driver}:".encode()):
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def test_under_load_with_a_replica_killed_no_answer_is_lost_or_wrong(served: tuple[int, int], gallery: Gallery) -> None:
    port, driver = served
    files = [picture(number) for number in range(_IMAGES)]
    pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    expected_ND = gallery.model.embed(pixels).features_ND if gallery.model else np.empty(0)
    expected = [[match.name for match in found] for found in gallery.search_features(expected_ND, 5)]
    answers: Counter[str] = Counter()
    wrong: list[str] = []
    seconds: list[float] = []
    end = time.monotonic() + _SECONDS

    def ask(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        number = client
        while time.monotonic() < end:
            number = (number + 1) % _IMAGES
            path = "/search?k=5" if number % 2 else "/embed"
            started = time.monotonic()
            try:
                connection.request("POST", path, files[number], {"Authorization": f"Bearer {TOKEN}"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{path} {number}: {error!r}")
                return
            seconds.append(time.monotonic() - started)
            answers[f"{path} {answer.status}"] += 1
            if answer.status != 200:
                wrong.append(f"{path} {number}: {answer.status} {told}")
            elif path == "/embed":
                if not np.allclose(told["features"], expected_ND[number][None], atol=1e-5):
                    wrong.append(f"{path} {number}: other features")
            elif [result["name"] for result in told["results"]] != expected[number]:
                wrong.append(f"{path} {number}: {[result['name'] for result in told['results']]}")
        connection.close()

    before = _replicas(driver)
    assert len(before) == 2
    clients = [threading.Thread(target=ask, args=(client,)) for client in range(_CLIENTS)]
    for client in clients:
        client.start()
    killed = []
    for part in (0.25, 0.6):
        time.sleep(max(0.0, end - (1 - part) * _SECONDS - time.monotonic()))
        there = _replicas(driver)
        killed.append(there[0])
        os.kill(there[0], signal.SIGKILL)
    for client in clients:
        client.join()
    print(
        f"\n{_CLIENTS} clients, {_SECONDS:g} s, replicas {before}, killed {killed}, now {_replicas(driver)}: "
        f"{dict(answers)}, {sum(answers.values()) / _SECONDS:.0f} a second, median {1000 * median(seconds):.0f} ms, "
        f"99 % below {1000 * quantiles(seconds, n=100)[98]:.0f} ms, longest {max(seconds):.1f} s"
    )
    assert wrong == []
    assert set(answers) == {"/embed 200", "/search?k=5 200"}
    assert killed[0] not in _replicas(driver)
