"""Checkpoints: whole or not at all, bit for bit, and never the cause of a loss."""

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from reidray.bank import read_snapshot
from reidray.disk import disk_errors
from reidray.storage import checkpoints as room
from reidray.storage.checkpoints import (
    Checkpoint,
    CheckpointStore,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
)

FILES = [
    "bank-0.safetensors",
    "bank-1.safetensors",
    "heads.safetensors",
    "model.safetensors",
    "optimiser.safetensors",
    "rng.safetensors",
    "state.json",
]


def bank_rows(seed=0):
    random = np.random.default_rng(seed)
    return {
        "train/masks/0": random.random((3, 4, 2, 2)).astype(np.float16),
        "train/masks/10": random.random((2, 4, 2, 2)).astype(np.float16),
        "train/labels/0": random.integers(-1, 9, 3),
        "train/alphas/0": np.empty((3, 0), np.float32),
        "memory/features/places": np.arange(5),
        "memory/features/rows": random.normal(size=(5, 2, 3)).astype(np.float32),
        "memory/cameras/places": np.arange(2),
        "memory/cameras/rows": random.normal(size=(2, 1, 7)).astype(np.float32),
    }


def bank_of(seed=0):
    """What writes the bank's files into a checkpoint's folder: two shards with every other block."""

    def write(folder):
        hashes = {}
        for shard in (0, 1):
            file = folder / f"bank-{shard}.safetensors"
            save_file(dict(list(bank_rows(seed).items())[shard::2]), file)
            hashes[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return hashes

    return write


def checkpoint(epoch=0, seed=0, step=None):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last)
    weight[0, 0, 0, 0] = -0.0
    weight[0, 0, 0, 1] = 1e-42  # subnormal
    return Checkpoint(
        epoch=epoch,
        step=step,
        heads={"weight_SCD": torch.randn(2, 3, generator=generator)},
        heads_optimiser={0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3, generator=generator)}},
        modules={
            "classifier.weight": torch.randn(3, 5, generator=generator),
            "norm.num_batches_tracked": torch.tensor(5),
        },
        model={"conv.weight": weight, "norm.num_batches_tracked": torch.tensor(7), "half": weight.bfloat16()},
        optimiser={
            0: {"step": torch.tensor(12.0), "exp_avg": torch.randn(4, 3, generator=generator)},
            11: {"step": torch.tensor(12.0), "exp_avg": torch.randn(2, generator=generator)},
        },
        rng=[torch.Generator().manual_seed(rank).get_state() for rank in range(12)],
        history={"epochs": [{"epoch": 0, "mAP": 1 / 3, "loss": 1e-300}], "seconds": {"train": 0.1}, "before": None},
        settings={"train": {"epochs": 3, "learning_rate": 3.5e-4}, "run": {"dir": None}},
    )


def same_tensor(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.contiguous().numpy(force=True).tobytes() == expected.contiguous().numpy(force=True).tobytes()


def assert_same(found, expected, seed=None):
    assert found.epoch == expected.epoch
    assert found.model.keys() == expected.model.keys()
    for name, tensor in expected.model.items():
        same_tensor(
            found.model[name].view(torch.uint8) if tensor.dtype == torch.bfloat16 else found.model[name],
            tensor.contiguous().view(torch.uint8) if tensor.dtype == torch.bfloat16 else tensor,
        )
    assert found.optimiser.keys() == expected.optimiser.keys()
    for number, state in expected.optimiser.items():
        assert found.optimiser[number].keys() == state.keys()
        for name, tensor in state.items():
            same_tensor(found.optimiser[number][name], tensor)
    assert len(found.rng) == len(expected.rng)
    for state, wanted in zip(found.rng, expected.rng, strict=True):
        same_tensor(state, wanted)
    assert found.step == expected.step
    assert found.heads.keys() == expected.heads.keys()
    for name, tensor in expected.heads.items():
        same_tensor(found.heads[name], tensor)
    assert found.heads_optimiser.keys() == expected.heads_optimiser.keys()
    for number, state in expected.heads_optimiser.items():
        for name, tensor in state.items():
            same_tensor(found.heads_optimiser[number][name], tensor)
    assert found.modules.keys() == expected.modules.keys()
    for name, tensor in expected.modules.items():
        same_tensor(found.modules[name], tensor)
    if seed is not None:
        stored = read_snapshot(found.bank)
        assert stored.keys() == bank_rows(seed).keys()
        for key, rows in bank_rows(seed).items():
            assert stored[key].dtype == rows.dtype
            assert stored[key].shape == rows.shape
            assert stored[key].tobytes() == rows.tobytes()
    assert found.history == expected.history
    assert found.settings == expected.settings


def written(folder, *epochs, keep=10):
    """A store after saving these epochs; its folder holds them."""
    store = CheckpointStore(folder, keep=keep)
    for epoch in epochs:
        store.save(checkpoint(epoch, seed=epoch), bank_of(epoch))
    store.wait()
    return store


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- there and back


def test_every_field_comes_back_bit_for_bit(tmp_path):
    store = written(tmp_path / "checkpoints", 3)
    found, passed_over = store.newest()
    assert passed_over == []
    assert_same(found, checkpoint(3, seed=3), seed=3)
    assert_same(load_checkpoint(tmp_path / "checkpoints" / "epoch_0003"), checkpoint(3, seed=3), seed=3)
    assert_same(store.load("epoch_0003"), checkpoint(3, seed=3), seed=3)
    store.close()


def test_moments_of_heads_are_kept_without_the_heads(tmp_path):
    """Where the labels do not go on, but a method keeps the moments for its next heads."""
    one = checkpoint()
    one.heads.clear()
    store = CheckpointStore(tmp_path, keep=1)
    store.save(one)
    store.wait()
    found = store.newest()[0]
    assert found.heads == {}
    assert list(found.heads_optimiser) == [0]
    assert_same(found, one)


def test_layers_beside_the_network_are_kept_whatever_their_names(tmp_path):
    """They share a file with the heads, whose names are their own too."""
    one = checkpoint()
    one.modules.update({"layers/w": torch.ones(1), "0/step": torch.ones(2), "modules/w": torch.ones(3)})
    one.heads.update({"modules/w": torch.zeros(1), "moments/0/step": torch.zeros(2)})
    store = CheckpointStore(tmp_path, keep=1)
    store.save(one)
    store.wait()
    assert_same(store.newest()[0], one)


def test_a_checkpoint_before_the_first_step_comes_back(tmp_path):
    bare = Checkpoint(0, {"w": torch.zeros(2)}, {}, [torch.get_rng_state()], {"epochs": []}, {})
    store = CheckpointStore(tmp_path, keep=1)
    store.save(bare)
    store.wait()
    assert_same(store.newest()[0], bare)


def test_a_checkpoint_holds_what_was_there_when_it_was_saved(tmp_path):
    store, live = CheckpointStore(tmp_path, keep=1), checkpoint()
    store.save(live)
    live.model["conv.weight"].zero_()
    live.optimiser[0]["exp_avg"].zero_()
    live.modules["classifier.weight"].zero_()
    live.heads["weight_SCD"].zero_()
    live.heads_optimiser[0]["exp_avg"].zero_()
    live.rng[0].zero_()
    live.history["epochs"].append({"epoch": 1})
    store.wait()
    assert_same(store.newest()[0], checkpoint())


def test_a_network_and_adam_go_on_as_if_nothing_had_happened(tmp_path):
    def start():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        net.to(memory_format=torch.channels_last)
        return net, torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-3)

    def steps(net, optimiser, generator, count):
        for _ in range(count):
            optimiser.zero_grad()
            net(torch.randn(4, 3, 6, 6, generator=generator)).square().mean().backward()
            optimiser.step()

    whole, generator = start(), torch.Generator().manual_seed(1)
    steps(*whole, generator, 3)
    store = CheckpointStore(tmp_path, keep=1)
    net, optimiser = whole
    store.save(Checkpoint(0, net.state_dict(), optimiser_tensors(optimiser), [generator.get_state()], {}, {}))
    steps(*whole, generator, 3)

    store.wait()
    found, _ = store.newest()
    net, optimiser = start()
    net.load_state_dict(found.model)
    restore_optimiser(optimiser, found.optimiser)
    generator = torch.Generator()
    generator.set_state(found.rng[0])
    steps(net, optimiser, generator, 3)
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


def test_files_are_safetensors_and_json_and_hold_no_pickle(tmp_path):
    written(tmp_path, 0)
    place = tmp_path / "epoch_0000"
    assert names(place) == FILES
    for name in FILES[:-1]:
        data = (place / name).read_bytes()
        header = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + header])
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        assert 8 + header + max(ends) == len(data)  # a header and raw numbers, nothing else
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads(data)
        assert not data.startswith(b"PK")
    state = json.loads((place / "state.json").read_text())
    assert state["format"] == room.FORMAT
    assert sorted(state["files"]) == FILES[:-1]


def test_no_checkpoint_yet_is_none(tmp_path):
    assert CheckpointStore(tmp_path / "not there", keep=2).newest() == (None, [])


# ---- damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "missing", "changed", "empty"])
def test_a_damaged_newest_is_passed_over_with_a_sentence_and_the_one_before_taken(tmp_path, name, damage):
    store = written(tmp_path, 4, 5)
    file = tmp_path / "epoch_0005" / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "changed" and name == "state.json":
        file.write_bytes(data.replace(b'"files"', b'"fi\xfees"'))
    else:
        changed = data[:-1] + bytes([data[-1] ^ 1])
        file.write_bytes({"cut": data[: len(data) // 2], "changed": changed, "empty": b""}[damage])
    found, passed_over = store.newest()
    assert_same(found, checkpoint(4, seed=4))
    assert len(passed_over) == 1
    assert str(tmp_path / "epoch_0005") in passed_over[0]
    assert "\n" not in passed_over[0]


def test_a_state_whose_entries_are_misnamed_is_passed_over_with_a_sentence(tmp_path):
    store = written(tmp_path, 4, 5)
    file = tmp_path / "epoch_0005" / "state.json"
    data = file.read_bytes()
    keys = [data.index(key.encode()) + 1 for key in ('"format"', '"epoch"', '"history"', '"settings"', '"files"')]
    for place in keys:
        file.write_bytes(data[:place] + b"X" + data[place + 1 :])
        found, passed_over = store.newest()
        assert found.epoch == 4, place
        assert len(passed_over) == 1


@pytest.mark.parametrize("text", ["[]", "null", "7", '"epoch"', "{}", '{"format": 1}', '{"format": 1, "files": []}'])
def test_a_state_of_another_shape_is_passed_over_with_a_sentence(tmp_path, text):
    store = written(tmp_path, 4, 5)
    (tmp_path / "epoch_0005" / "state.json").write_text(text)
    found, passed_over = store.newest()
    assert found.epoch == 4
    assert len(passed_over) == 1
    assert str(tmp_path / "epoch_0005") in passed_over[0]


def test_several_damaged_ones_are_passed_over_newest_first(tmp_path):
    store = written(tmp_path, 1, 2, 3)
    for epoch in (2, 3):
        (tmp_path / f"epoch_000{epoch}" / "rng.safetensors").unlink()
    found, passed_over = store.newest()
    assert found.epoch == 1
    assert [sentence.split(" ")[0].split("/")[-1] for sentence in passed_over] == ["epoch_0003", "epoch_0002"]
    assert all("rng.safetensors" in sentence for sentence in passed_over)


def test_nothing_whole_gives_none_and_a_sentence_for_each(tmp_path):
    store = written(tmp_path, 1, 2)
    for epoch in (1, 2):
        (tmp_path / f"epoch_000{epoch}" / "state.json").unlink()
    found, passed_over = store.newest()
    assert found is None
    assert len(passed_over) == 2


def test_another_format_is_refused_by_its_number(tmp_path):
    store = written(tmp_path, 1, 2)
    state = tmp_path / "epoch_0002" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
    with pytest.raises(ValueError, match=r"epoch_0002 has checkpoint format 99; this version reads format 4"):
        load_checkpoint(tmp_path / "epoch_0002")
    found, passed_over = store.newest()
    assert found.epoch == 1
    assert "format 99" in passed_over[0]


def test_a_checkpoint_of_the_format_before_is_refused_by_its_number(tmp_path):
    """Its settings lack readings that this version would fill in with other values in the middle of the run."""
    written(tmp_path, 1)
    state = tmp_path / "epoch_0001" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 3}))
    with pytest.raises(ValueError, match=r"has checkpoint format 3; this version reads format 4"):
        load_checkpoint(tmp_path / "epoch_0001")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a whole checkpoint: state\.json is missing"):
        load_checkpoint(tmp_path)


# ---- killed while writing


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from reidray.storage import checkpoints as room

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def half_written(path):
    kill() if path.name == "rng.safetensors" else None
    return "0" * 64

def between(path, target):
    kill() if path.name.startswith(".epoch_0005.") and Path(target).name == "epoch_0005" else os.rename(path, target)

new = room.Checkpoint(5, {"w": torch.ones(2)}, {}, [torch.get_rng_state()], {}, {})
for folder, name, deadly in ((sys.argv[1], "_sha256", half_written), (sys.argv[2], "rename", between)):
    child = os.fork()
    if child == 0:
        setattr(room if name == "_sha256" else Path, name, deadly)
        store = room.CheckpointStore(Path(folder), keep=1)
        store.save(new)
        store.wait()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two folders whose writer was killed, without any clean-up, while it wrote epoch 5.

    The first held epoch 4, and some of the new files were on disk; the second held epoch 5 already, and the new one
    was whole but not yet in its place.
    """
    folders = [tmp_path_factory.mktemp("half"), tmp_path_factory.mktemp("between")]
    for folder, epoch in zip(folders, (4, 5), strict=True):
        written(folder, epoch).close()
    root = Path(room.__file__).parents[2]
    subprocess.run([sys.executable, "-c", KILLED, *map(str, folders)], check=True, cwd=root)
    return folders


def test_a_half_written_folder_of_a_killed_writer_is_ignored(killed):
    folder, _ = killed
    assert len(names(folder)) == 2  # the half-written folder is there, under another name
    store = CheckpointStore(folder, keep=2)
    found, passed_over = store.newest()
    assert_same(found, checkpoint(4, seed=4))
    assert passed_over == []
    store.save(checkpoint(5, seed=5))
    store.close()
    assert_same(CheckpointStore(folder, keep=2).newest()[0], checkpoint(5, seed=5))


def test_what_a_killed_writer_left_is_cleared_away_by_the_next_checkpoint(tmp_path):
    left = tmp_path / ".epoch_0005.4711"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half of a network")
    written(tmp_path, 5, 6)
    assert names(tmp_path) == ["epoch_0005", "epoch_0006"]


def test_a_writer_of_a_group_that_is_gone_cannot_harm_what_the_next_one_writes(tmp_path):
    """Its machine is cut off and alive: it is in the middle of epoch 5 when the next group has come to epoch 6."""
    began, overtaken = threading.Event(), threading.Event()

    def slowly(folder):
        began.set()
        overtaken.wait()
        with disk_errors():
            return bank_of(5)(folder)

    gone, next_one = written(tmp_path, 4), CheckpointStore(tmp_path, keep=3)
    gone.save(checkpoint(5, seed=5), slowly)
    began.wait()
    for epoch in (5, 6):
        next_one.save(checkpoint(epoch, seed=epoch), bank_of(epoch))
        next_one.wait()
    overtaken.set()
    with pytest.raises(OSError, match="could not write checkpoint"):
        gone.close()
    assert names(tmp_path) == ["epoch_0004", "epoch_0005", "epoch_0006"]
    assert_same(CheckpointStore(tmp_path, keep=3).load("epoch_0005"), checkpoint(5, seed=5))


def test_a_writer_killed_while_it_replaces_an_epoch_leaves_a_whole_one(killed):
    _, folder = killed
    store = CheckpointStore(folder, keep=1)
    found, _ = store.newest()
    assert found is not None, "the old checkpoint is gone and the new one is not in its place"
    assert found.epoch == 5
    assert_same(store.load(found.folder), found)
    store.save(checkpoint(6, seed=6))
    store.close()
    assert_same(CheckpointStore(folder, keep=1).newest()[0], checkpoint(6, seed=6))


def test_an_epoch_written_again_takes_the_place_of_the_first(tmp_path):
    store = written(tmp_path, 4, 5)
    store.save(checkpoint(5, seed=77))
    store.wait()
    assert names(tmp_path) == ["epoch_0004", "epoch_0005"]
    assert_same(store.newest()[0], checkpoint(5, seed=77))


# ---- how many stay


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_stay(tmp_path, keep):
    written(tmp_path, *range(5), keep=keep)
    assert names(tmp_path) == [f"epoch_000{epoch}" for epoch in range(5)][-keep:]


def test_what_was_just_written_stays_beside_damaged_ones_of_later_epochs(tmp_path):
    # A run whose checkpoints are all damaged (or of another format) starts again at epoch 0.
    written(tmp_path, 8, 9, keep=2)
    for epoch in (8, 9):
        (tmp_path / f"epoch_000{epoch}" / "state.json").unlink()
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest()[0] is None
    for epoch in (0, 1, 2):
        store.save(checkpoint(epoch))
        store.wait()
        found, _ = store.newest()
        assert found is not None, f"the checkpoint of epoch {epoch} was cleaned away when it was written"
        assert found.epoch == epoch


def test_one_in_the_middle_of_an_epoch_comes_between_those_of_whole_epochs(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    for epoch, step in ((3, None), (4, 0), (4, 120), (4, 1_000_000)):
        store.save(checkpoint(epoch, step=step), bank_of())
        store.wait()
        assert_same(store.newest()[0], checkpoint(epoch, step=step), seed=0)
    assert names(tmp_path) == ["epoch_0003", *(f"epoch_0004_step_{n}" for n in ("000000", "000120", "1000000"))]
    store.save(checkpoint(4), bank_of())
    store.wait()
    assert_same(store.newest()[0], checkpoint(4))
    CheckpointStore(tmp_path, keep=2).save(checkpoint(5))


def test_the_ten_thousandth_epoch_comes_after_the_one_before(tmp_path):
    store = written(tmp_path, 9999, 10000, keep=1)
    assert store.newest()[0].epoch == 10000


# ---- no room


@contextmanager
def files_of_at_most(size):
    """A real limit on the size of files: writing beyond it fails as on a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_one_before_is_untouched(store, folder, error):
    assert "could not write checkpoint" in str(error)
    assert str(folder / "epoch_0005") in str(error)
    assert "the one before it is untouched" in str(error)
    assert "\n" not in str(error)
    assert names(folder) == ["epoch_0004"]
    assert_same(store.newest()[0], checkpoint(4, seed=4))
    store.save(checkpoint(5, seed=5))  # there is room again
    store.wait()
    assert_same(store.newest()[0], checkpoint(5, seed=5))
    store.close()


def full(*arguments, **more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_full_disk_gives_one_sentence_and_leaves_the_one_before(tmp_path, monkeypatch, call):
    store = written(tmp_path, 4)
    with monkeypatch.context() as patched:
        patched.setattr(*(os, "fsync", full) if call == "fsync" else (Path, call, full))
        store.save(checkpoint(5))
        with pytest.raises(OSError, match="No space left on device") as caught:
            store.wait()
    assert caught.value.errno == errno.ENOSPC
    assert_one_before_is_untouched(store, tmp_path, caught.value)


def test_an_epoch_that_cannot_be_written_again_stays_as_it_was(tmp_path, monkeypatch):
    store = written(tmp_path, 5)
    monkeypatch.setattr(Path, "rename", full)
    store.save(checkpoint(5, seed=77))
    with pytest.raises(OSError, match="the one before it is untouched"):
        store.wait()
    assert_same(store.newest()[0], checkpoint(5, seed=5))


def test_a_tensor_file_that_does_not_fit_gives_one_sentence_and_leaves_the_one_before(tmp_path):
    store = written(tmp_path, 4)
    large = checkpoint(5)
    large.model["large"] = torch.zeros(1 << 18)
    with files_of_at_most(1 << 18):
        store.save(large)
        with pytest.raises(OSError, match="large") as caught:
            store.wait()
    assert caught.value.errno == errno.EFBIG
    assert_one_before_is_untouched(store, tmp_path, caught.value)


def test_where_there_was_no_checkpoint_before_the_sentence_does_not_speak_of_one(tmp_path):
    store = CheckpointStore(tmp_path / "new", keep=2)
    large = checkpoint(0)
    large.model["large"] = torch.zeros(1 << 18)
    with files_of_at_most(1 << 18):
        store.save(large)
        with pytest.raises(OSError, match=r"could not write checkpoint .*epoch_0000: .*; there is none before it$"):
            store.wait()
    store.close()
    assert names(tmp_path / "new") == []


def test_a_write_that_failed_is_raised_by_the_next_save(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=2)
    with monkeypatch.context() as patched:
        patched.setattr(room, "_write_files", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no room")))
        store.save(checkpoint(0))
        with pytest.raises(OSError, match="no room"):
            store.save(checkpoint(1))
    store.save(checkpoint(1))
    store.close()
    assert names(tmp_path) == ["epoch_0001"]


def test_a_store_whose_folder_vanished_says_so(tmp_path):
    store = written(tmp_path / "checkpoints", 0)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("a file")
    store.save(checkpoint(1))
    with pytest.raises(OSError, match="could not write checkpoint"):
        store.close()
