"""The memory bank: one shard or many, blocks of any size, written again and restored."""

import hashlib
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from reidray.bank import BankShard, Done, InProcess, LostRowsError, MemoryBank, read_snapshot, smoothed_masks

# N = images, R = rows of a memory, S = vectors, D = their width

BLOCKS = [(0, 4), (4, 1), (5, 7), (12, 3), (15, 2)]  # of uneven size
N = 17
LAYOUTS = {"train": BLOCKS, "query": [(0, 3)]}


def bank(shards=1):
    return MemoryBank([InProcess(BankShard()) for _ in range(shards)], LAYOUTS)


def rows(seed=0, *, shape=(3, 2), dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(N, *shape)).astype(dtype)


def fill(one, rows_N, version=0, table="train/features"):
    for block, (first, count) in enumerate(BLOCKS):
        one.put(table, version, block, rows_N[first : first + count])


def memory(seed=0, count=7, vectors=2, width=3):
    return np.random.default_rng(seed).normal(size=(count, vectors, width)).astype(np.float32)


# ---- rows of images


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_several_shards_give_the_same_as_one(shards):
    one, rows_N = bank(shards), rows()
    fill(one, rows_N)
    np.testing.assert_array_equal(one.read("train/features", 0), rows_N)
    np.testing.assert_array_equal(one.read("train/features", 0, 1), rows_N[:, 1])
    np.testing.assert_array_equal(one.read("train/features", 0, blocks=range(1, 3)), rows_N[4:12])
    np.testing.assert_array_equal(one.read("train/features", 0, 1, range(4, 5)), rows_N[15:, 1])
    indices = np.random.default_rng(1).integers(0, N, 40)  # out of order, some more than once
    np.testing.assert_array_equal(one.take("train/features", 0, indices), rows_N[indices])
    np.testing.assert_array_equal(one.take("train/features", 0, indices, 2), rows_N[indices, 2])


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_take_gives_rows_in_the_order_asked_for(shards):
    one = bank(shards)
    fill(one, np.arange(N), table="train/labels")
    for indices in ([16, 0, 4, 11, 12, 5, 3], [4], [16, 15, 14], [7, 7, 7], list(range(N))[::-1]):
        assert one.take("train/labels", 0, np.array(indices)).tolist() == indices


def test_blocks_without_images_are_passed_over():
    one = MemoryBank([InProcess(BankShard()) for _ in range(2)], {"train": [(0, 2), (2, 0), (2, 0), (2, 3)]})
    for block, numbers in enumerate(([0, 1], [], [], [2, 3, 4])):
        one.put("train/labels", 0, block, np.array(numbers, np.int64))
    assert one.read("train/labels", 0).tolist() == [0, 1, 2, 3, 4]
    assert one.take("train/labels", 0, np.array([2, 1, 4])).tolist() == [2, 1, 4]


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_which_blocks_are_there_can_be_asked(shards):
    one = bank(shards)
    assert one.blocks("train/features", 3) == set()
    for block in (4, 0, 1):
        one.put("train/features", 3, block, rows()[: BLOCKS[block][1]])
    assert one.blocks("train/features", 3) == {0, 1, 4}
    assert one.blocks("train/features", 2) == one.blocks("train/labels", 3) == set()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int8])
def test_types_are_kept(dtype):
    one, rows_N = bank(2), np.random.default_rng(0).integers(-3, 3, (N, 2)).astype(dtype)
    fill(one, rows_N)
    assert one.read("train/features", 0).dtype == dtype
    assert one.take("train/features", 0, np.array([3, 16])).dtype == dtype


def test_rows_of_no_columns_are_kept():
    one = bank(2)
    fill(one, np.empty((N, 0), np.float32), table="train/alphas")
    assert one.read("train/alphas", 0).shape == (N, 0)


def test_splits_have_layouts_of_their_own():
    one = bank(2)
    one.put("query/features", 0, 0, np.arange(3))
    assert one.layout("train") == BLOCKS
    assert one.layout("query") == [(0, 3)]
    assert one.take("query/features", 0, np.array([2, 0])).tolist() == [2, 0]


def test_what_was_written_does_not_change_with_the_writers_array():
    one, rows_N = bank(), rows()
    written = rows_N.copy()
    fill(one, written)
    written[:] = 0
    one.read("train/features", 0)[:] = 1
    one.take("train/features", 0, np.arange(N))[:] = 2
    np.testing.assert_array_equal(one.read("train/features", 0), rows_N)


def test_what_is_not_there_is_named():
    one = bank(2)
    one.put("train/features", 0, 0, rows()[:4])
    with pytest.raises(ValueError, match="no train/features of epoch 0 for block 2"):
        one.read("train/features", 0)
    with pytest.raises(ValueError, match="no train/labels of epoch 3 for block 0"):
        one.take("train/labels", 3, np.array([1]))
    with pytest.raises(ValueError, match="no rows of train/features were asked for"):
        one.take("train/features", 0, np.array([], np.int64))


# ---- versions


def test_a_repeated_write_is_harmless_and_the_last_one_stands():
    one = bank(2)
    fill(one, rows(0))
    fill(one, rows(0))
    np.testing.assert_array_equal(one.read("train/features", 0), rows(0))
    fill(one, rows(1))
    np.testing.assert_array_equal(one.read("train/features", 0), rows(1))


def test_a_write_of_an_older_epoch_is_refused_and_changes_nothing():
    one = bank()
    fill(one, rows(4), version=4)
    fill(one, rows(5), version=5)
    for older in (4, 3, 0):
        with pytest.raises(ValueError, match=rf"holds train/features of epoch 5 and was sent epoch {older}"):
            one.put("train/features", older, 0, rows(9)[:4])
    np.testing.assert_array_equal(one.read("train/features", 5), rows(5))
    one.put("train/labels", 0, 0, np.arange(4))  # another table has versions of its own


def test_features_of_the_newest_version_replace_those_before_block_by_block():
    one = bank(2)
    fill(one, rows(0), 0)
    fill(one, rows(3), 3)
    for block, (first, count) in enumerate(BLOCKS):
        one.put("train/features", 4, block, rows(4)[first : first + count])
        one.flush()
        assert sum(sizes["train/features"] for sizes in one.sizes()) == rows().nbytes
        assert one.blocks("train/features", 4) == set(range(block + 1))
        assert one.blocks("train/features", 3) == set(range(block + 1, len(BLOCKS)))
    np.testing.assert_array_equal(one.read("train/features", 4), rows(4))
    for version in (0, 3):
        with pytest.raises(ValueError, match=f"no train/features of epoch {version}"):
            one.read("train/features", version)


def test_a_checkpoint_of_rows_that_were_replaced_is_refused(tmp_path):
    one = bank(1)
    fill(one, rows(0), 0)
    one.put("train/features", 1, 0, rows(1)[:4])
    with pytest.raises(ValueError, match="asked to keep train/features of epoch 0, of which rows are gone"):
        one.mark(["train/features"], 0, memories=[]).write(tmp_path)


def test_of_a_table_that_is_kept_the_two_newest_versions_that_are_known_stay():
    one, labels_N = bank(2), np.arange(N)
    for version in (0, 3, 7):  # epochs without labels lie between them
        for block, (first, count) in enumerate(BLOCKS):
            own = labels_N[first : first + count] + version
            one.put_tables("train", version, block, {"labels": own, "alphas": own}, {}, kept=["labels"])
    one.flush()
    for version in (3, 7):
        np.testing.assert_array_equal(one.read("train/labels", version), labels_N + version)
    np.testing.assert_array_equal(one.read("train/alphas", 7), labels_N + 7)
    for table, version in (("labels", 0), ("labels", 6), ("alphas", 3)):
        with pytest.raises(ValueError, match=f"no train/{table} of epoch {version}"):
            one.read(f"train/{table}", version)


# ---- several tables at once, and moving averages


@pytest.mark.parametrize("shards", [1, 3])
def test_several_tables_are_written_at_once_each_with_its_own_type(shards):
    one, labels_N, alphas_N = bank(shards), np.arange(N), rows(shape=(3,), dtype=np.float16)
    for block, (first, count) in enumerate(BLOCKS):
        own = slice(first, first + count)
        one.put_tables("train", 2, block, Done({"labels": labels_N[own], "alphas": alphas_N[own]}), {})
    one.flush()
    np.testing.assert_array_equal(one.read("train/labels", 2), labels_N)
    np.testing.assert_array_equal(one.read("train/alphas", 2), alphas_N)
    assert one.read("train/alphas", 2).dtype == np.float16
    with pytest.raises(ValueError, match="holds train/labels of epoch 2 and was sent epoch 1"):
        one.put_tables("train", 1, 0, {"labels": labels_N[:4]}, {})


def parts(seed):
    return np.random.default_rng(seed).integers(0, 3, (N, 4, 2)).astype(np.int8)


def fill_masks(one, version, momentum=0.2):
    for block, (first, count) in enumerate(BLOCKS):
        hard = Done({"parts": parts(version)[first : first + count]})  # may still be on its way
        one.put_tables("train", version, block, hard, {"masks": ("parts", 3, momentum)})


@pytest.mark.parametrize("shards", [1, 3])
def test_soft_masks_follow_equation_3_from_epoch_to_epoch(shards):
    one, expected = bank(shards), None
    for epoch in range(4):
        fill_masks(one, epoch)
        expected = smoothed_masks(expected, parts(epoch), num_classes=3, momentum=0.2)
        np.testing.assert_array_equal(one.read("train/masks", epoch), expected)
        np.testing.assert_array_equal(one.read("train/parts", epoch), parts(epoch))  # what they are averages of


def test_soft_masks_written_again_in_the_same_epoch_are_the_same():
    one = bank(2)
    fill_masks(one, 0)
    fill_masks(one, 1)
    once = one.read("train/masks", 1)
    fill_masks(one, 1)
    one.put_tables("train", 1, 2, {"parts": parts(1)[5:12]}, {"masks": ("parts", 3, 0.2)})
    np.testing.assert_array_equal(one.read("train/masks", 1), once)
    np.testing.assert_array_equal(one.read("train/masks", 0), smoothed_masks(None, parts(0), num_classes=3, momentum=0))


def test_soft_masks_after_epochs_that_kept_their_labels_are_averages_of_the_newest_before():
    one, expected = bank(2), None
    for epoch in (0, 2, 7):
        fill_masks(one, epoch)
        fill_masks(one, epoch)  # repeated after a crash
        expected = smoothed_masks(expected, parts(epoch), num_classes=3, momentum=0.2)
        np.testing.assert_array_equal(one.read("train/masks", epoch), expected)


def test_several_averages_of_one_table_have_momenta_of_their_own():
    one, soft, hard = bank(2), None, None
    for epoch in range(3):
        for block, (first, count) in enumerate(BLOCKS):
            tables = {"parts": parts(epoch)[first : first + count]}
            one.put_tables("train", epoch, block, tables, {"soft": ("parts", 3, 0.7), "hard": ("parts", 4, 0.0)})
        soft = smoothed_masks(soft, parts(epoch), num_classes=3, momentum=0.7)
        hard = smoothed_masks(None, parts(epoch), num_classes=4, momentum=0.0)
    np.testing.assert_array_equal(one.read("train/soft", 2), soft)
    np.testing.assert_array_equal(one.read("train/hard", 2), hard)


# ---- rows of memories


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_a_memory_comes_back_whole_with_the_rows_that_moved(shards):
    one, expected_RSD = bank(shards), memory()
    one.put_memory("features", 0, expected_RSD)
    np.testing.assert_array_equal(one.memory("features", 0), expected_RSD)
    for step, moved in enumerate(([0, 3, 6], [1], [2, 3, 4, 5], [6])):
        expected_RSD[moved] = memory(seed=10 + step)[moved]
        one.move_memory("features", 0, step, np.array(moved), expected_RSD[moved])
    one.flush()
    found_RSD = one.memory("features", 0)
    assert found_RSD.dtype == np.float32
    np.testing.assert_array_equal(found_RSD, expected_RSD)


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_some_rows_of_a_memory_come_in_the_order_asked_for_without_the_others(shards):
    one, all_RSD = bank(shards), memory()
    one.put_memory("features", 0, all_RSD)
    assert one.memory_shape("features", 0) == (7, 2, 3)
    for wanted in ([6, 0, 3], [2], [], [5, 5, 1], list(range(7))):
        np.testing.assert_array_equal(one.take_memory("features", 0, np.array(wanted, np.int64)), all_RSD[wanted])
    one.take_memory("features", 0, np.array([4]))[:] = 0  # a copy
    np.testing.assert_array_equal(one.memory("features", 0), all_RSD)


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_rows_of_a_memory_that_are_not_there_are_refused(shards):
    one = bank(shards)
    one.put_memory("features", 0, memory())
    for wanted in ([7], [0, 100]):
        with pytest.raises(ValueError, match="asked for rows of memory features of epoch 0 that it does not own"):
            one.take_memory("features", 0, np.array(wanted))
    with pytest.raises(ValueError, match=r"no memory features of epoch 1; it has \{'features': 0\}"):
        one.take_memory("features", 1, np.array([0]))


def test_memories_belong_to_the_bank_alone():
    one, written = bank(), memory()
    one.put_memory("features", 0, written)
    written[:] = 0
    one.memory("features", 0)[:] = 1
    np.testing.assert_array_equal(one.memory("features", 0), memory())
    one.move_memory("features", 0, 0, np.array([2]), np.zeros((1, 2, 3), np.float32))
    assert not written.any()


def test_a_step_out_of_order_is_refused_and_a_repeated_one_is_harmless():
    one, moved = bank(2), np.array([1, 2])
    one.put_memory("features", 0, memory())
    one.move_memory("features", 0, 4, moved, memory(1)[moved])
    one.move_memory("features", 0, 4, moved, memory(1)[moved])
    with pytest.raises(ValueError, match="sent step 3 of memory features of epoch 0 after step 4"):
        one.move_memory("features", 0, 3, moved, memory(2)[moved])
    one.move_memory("features", 0, 6, moved, memory(3)[moved])  # a shard is sent only the steps that move its clusters
    expected_RSD = memory()
    expected_RSD[moved] = memory(3)[moved]
    np.testing.assert_array_equal(one.memory("features", 0), expected_RSD)


def test_a_memory_of_another_epoch_is_refused():
    one = bank(2)
    with pytest.raises(ValueError, match=r"no memory features of epoch 0; it has \{\}"):
        one.memory("features", 0)
    one.put_memory("features", 5, memory())
    with pytest.raises(ValueError, match="holds memory features of epoch 5 and was sent 4"):
        one.put_memory("features", 4, memory())
    with pytest.raises(ValueError, match=r"no memory features of epoch 6; it has \{'features': 5\}"):
        one.move_memory("features", 6, 0, np.array([0]), memory()[:1])
    one.move_memory("features", 5, 9, np.array([0]), memory(1)[:1])
    one.put_memory("features", 5, memory())  # labelled again after a crash: steps begin anew
    one.move_memory("features", 5, 0, np.array([0]), memory(2)[:1])
    np.testing.assert_array_equal(one.memory("features", 5)[0], memory(2)[0])
    one.put_memory("features", 6, memory(count=2))  # another epoch, another number of rows
    assert one.memory("features", 6).shape == (2, 2, 3)
    with pytest.raises(ValueError, match="no memory features of epoch 5"):
        one.memory("features", 5)


# ---- several memories


def fill_memories(one, version=0):
    """Memories of different widths and numbers of vectors; one of them has fewer rows than there are shards."""
    made = {
        "features": memory(20, 7, 2, 3),
        "cameras": memory(21, 11, 1, 5),
        "few": memory(22, 1, 4, 2),
    }
    for name, rows_RSD in made.items():
        one.put_memory(name, version, rows_RSD)
    return made


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_memories_of_different_widths_do_not_touch_each_other(shards):
    one = bank(shards)
    made = fill_memories(one)
    one.move_memory("cameras", 0, 0, np.array([0, 10]), memory(30, 2, 1, 5))
    made["cameras"][[0, 10]] = memory(30, 2, 1, 5)
    one.move_memory("features", 0, 5, np.array([0, 6]), memory(31, 2, 2, 3))
    made["features"][[0, 6]] = memory(31, 2, 2, 3)
    one.move_memory("cameras", 0, 1, np.array([3]), memory(32, 1, 1, 5))  # steps of each memory are counted by itself
    made["cameras"][[3]] = memory(32, 1, 1, 5)
    one.flush()
    for name, rows_RSD in made.items():
        assert one.memory_shape(name, 0) == rows_RSD.shape
        np.testing.assert_array_equal(one.memory(name, 0), rows_RSD)
        last_first = np.arange(len(rows_RSD))[::-1]
        np.testing.assert_array_equal(one.take_memory(name, 0, last_first), rows_RSD[::-1])
    sizes = {name: sum(of[f"memory/{name}"] for of in one.sizes()) for name in made}
    assert sizes == {name: rows_RSD.nbytes for name, rows_RSD in made.items()}


def test_memories_have_versions_of_their_own():
    one = bank(2)
    made = fill_memories(one)
    one.put_memory("cameras", 4, memory(40, 3, 1, 5))
    np.testing.assert_array_equal(one.memory("features", 0), made["features"])
    np.testing.assert_array_equal(one.memory("cameras", 4), memory(40, 3, 1, 5))
    with pytest.raises(ValueError, match="no memory cameras of epoch 0"):
        one.memory("cameras", 0)
    with pytest.raises(ValueError, match="no memory proxies of epoch 0"):
        one.take_memory("proxies", 0, np.array([0]))


@pytest.mark.parametrize(("taken_from", "put_into"), [(1, 3), (3, 2), (8, 1), (1, 8)])
def test_several_memories_go_on_from_one_snapshot(tmp_path, taken_from, put_into):
    one, other = bank(taken_from), bank(put_into)
    fill_memories(one, 5)
    fill(one, np.arange(N), version=5, table="train/labels")
    one.move_memory("cameras", 5, 3, np.array([1, 2, 9]), memory(50, 3, 1, 5))
    files = written(one, tmp_path / "bank", ["train/labels"], 5, memories=["features", "cameras", "few"])
    other.put_memory("gone", 5, memory())
    other.restore(5, files)
    for each in (one, other):
        each.move_memory("cameras", 5, 4, np.array([2, 10]), memory(51, 2, 1, 5))
        each.move_memory("few", 5, 4, np.array([0]), memory(52, 1, 4, 2))
        each.flush()
    for name in ("features", "cameras", "few"):
        np.testing.assert_array_equal(other.memory(name, 5), one.memory(name, 5))
    assert other.read("train/labels", 5).tolist() == list(range(N))
    with pytest.raises(ValueError, match="no memory gone of epoch 5"):
        other.memory("gone", 5)


def test_a_snapshot_has_the_memories_that_were_named_and_no_others(tmp_path):
    one = bank(2)
    made = fill_memories(one)
    stored = read_snapshot(written(one, tmp_path / "bank", [], 0, memories=["cameras"]))
    assert set(stored) == {"memory/cameras/places", "memory/cameras/rows"}
    order = np.argsort(stored["memory/cameras/places"])
    np.testing.assert_array_equal(stored["memory/cameras/rows"][order], made["cameras"])
    with pytest.raises(ValueError, match="no memory proxies of epoch 0"):
        one.mark([], 0, memories=["cameras", "proxies"])


# ---- the whole bank


def written(one, folder, tables, version, *, memories=()):
    """The files of a snapshot."""
    folder.mkdir()
    hashes = one.mark(tables, version, memories=memories).write(folder)
    files = [folder / name for name in hashes]
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == list(hashes.values())
    return files


@pytest.mark.parametrize(("taken_from", "put_into"), [(1, 1), (2, 3), (3, 1)])
def test_a_snapshot_restores_the_bank_whatever_the_number_of_shards(tmp_path, taken_from, put_into):
    one, other = bank(taken_from), bank(put_into)
    fill(one, np.arange(N), version=3, table="train/labels")
    for epoch in (2, 3):
        fill_masks(one, epoch)
    files = written(one, tmp_path / "bank", ["train/masks", "train/labels"], 3)
    assert len(files) == taken_from
    expected = {f"train/{name}/{block}" for name in ("masks", "labels") for block in range(len(BLOCKS))}
    assert set(read_snapshot(files)) == expected
    fill(other, rows(), version=7)
    other.put_memory("features", 7, memory())
    other.restore(3, files)

    assert other.read("train/labels", 3).tolist() == list(range(N))
    with pytest.raises(ValueError, match="no train/features of epoch 7"):
        other.read("train/features", 7)
    with pytest.raises(ValueError, match="no memory features of epoch 7"):
        other.memory("features", 7)
    for each in (one, other):  # the next epoch goes on from the same masks
        fill_masks(each, 4)
    np.testing.assert_array_equal(other.read("train/masks", 4), one.read("train/masks", 4))
    with pytest.raises(ValueError, match="holds train/labels of epoch 3 and was sent epoch 2"):
        other.put("train/labels", 2, 0, np.arange(4))


@pytest.mark.parametrize(("taken_from", "put_into"), [(1, 3), (3, 2), (8, 1), (1, 8)])
def test_memories_go_on_from_a_snapshot_in_the_middle_of_an_epoch(tmp_path, taken_from, put_into):
    one, other, moved = bank(taken_from), bank(put_into), np.array([1, 4])
    one.put_memory("features", 5, memory())
    one.move_memory("features", 5, 0, moved, memory(1)[moved])
    other.restore(5, written(one, tmp_path / "bank", [], 5, memories=["features"]))
    for each in (one, other):
        each.move_memory("features", 5, 1, np.array([4, 6]), memory(2)[[4, 6]])
    np.testing.assert_array_equal(other.memory("features", 5), one.memory("features", 5))
    np.testing.assert_array_equal(other.memory("features", 5)[1], memory(1)[1])


def test_an_empty_snapshot_empties_the_bank():
    one = bank(2)
    fill(one, rows(), version=7)
    one.put_memory("features", 7, memory())
    one.restore(-1, [])
    assert [sum(sizes.values()) for sizes in one.sizes()] == [0, 0]
    fill(one, rows(), version=0)
    one.put_memory("features", 0, memory())
    np.testing.assert_array_equal(one.memory("features", 0), memory())


def test_a_snapshot_does_not_change_with_the_bank(tmp_path):
    one = bank(2)
    fill(one, rows(0))
    one.put_memory("features", 0, memory())
    snapshot = one.mark(["train/features"], 0, memories=["features"])
    one.move_memory("features", 0, 0, np.arange(7), memory(1))
    fill(one, rows(1))
    fill(one, rows(2), version=1)
    stored = read_snapshot([tmp_path / name for name in snapshot.write(tmp_path)])
    for block, (first, count) in enumerate(BLOCKS):
        np.testing.assert_array_equal(stored[f"train/features/{block}"], rows(0)[first : first + count])
    np.testing.assert_array_equal(
        stored["memory/features/rows"][np.argsort(stored["memory/features/places"])], memory()
    )


def test_a_shard_that_was_started_again_refuses_whatever_comes_until_it_is_restored(tmp_path):
    members = [InProcess(BankShard()), InProcess(BankShard())]
    one = MemoryBank(members, LAYOUTS)
    one.restore(-1, [])
    fill(one, rows())
    one.put_memory("features", 0, memory())
    files = written(one, tmp_path / "bank", ["train/features"], 0, memories=["features"])
    marked = one.mark(["train/features"], 0, memories=[])
    members[1]._target = BankShard()  # the process died, and its actor was started again
    for call in (
        lambda: one.put("train/features", 0, 1, rows()[4:5]),
        lambda: one.read("train/features", 0),
        lambda: one.take("train/features", 0, np.arange(N)),
        lambda: one.blocks("train/features", 0),
        lambda: one.put_memory("features", 0, memory()),
        lambda: one.move_memory("features", 0, 0, np.array([1]), memory()[:1]),
        lambda: one.memory("features", 0),
        lambda: one.memory_shape("features", 0),
        lambda: one.take_memory("features", 0, np.arange(3)),
        lambda: one.mark(["train/features"], 0, memories=[]),
        lambda: marked.write(tmp_path),
    ):
        with pytest.raises(LostRowsError, match="was started again"):
            call()
    before = one.generation
    assert one.restore(0, files) > before
    np.testing.assert_array_equal(one.read("train/features", 0), rows())
    np.testing.assert_array_equal(one.memory("features", 0), memory())


def test_sizes_are_bytes_by_table():
    one = bank(1)
    fill(one, rows())
    one.put_memory("features", 0, memory())
    assert one.sizes() == [{"train/features": rows().nbytes, "memory/features": memory().nbytes}]


def test_the_facade_can_be_pickled():
    one = bank(2)
    fill(one, rows())
    one.put_memory("features", 0, memory())
    copy = pickle.loads(pickle.dumps(one))
    assert copy.layout("train") == BLOCKS
    np.testing.assert_array_equal(copy.read("train/features", 0), rows())
    np.testing.assert_array_equal(copy.memory("features", 0), memory())
    copy.put("train/features", 1, 0, rows(1)[:4])
    copy.flush()


class Failing:
    """Pending writes that fail, as those of an actor do: only when they are waited for."""

    def __init__(self):
        self.waited = 0

    def submit(self, method, *arguments):
        return self

    def result(self):
        self.waited += 1
        raise ValueError("the write did not arrive")


def test_a_write_that_failed_is_raised_at_flush_and_only_once():
    one = MemoryBank([Failing()], LAYOUTS)
    one.put("train/features", 0, 0, rows())
    with pytest.raises(ValueError, match="did not arrive"):
        one.flush()
    one.flush()


def test_a_write_that_failed_is_raised_by_a_later_one_without_a_flush():
    member = Failing()
    one = MemoryBank([member], LAYOUTS)

    def write_many():
        for version in range(1000):
            one.put("train/features", version, 0, rows())

    with pytest.raises(ValueError, match="did not arrive"):
        write_many()
    assert member.waited == 1


def test_writes_that_wait_are_not_pickled():
    one = MemoryBank([Failing()], LAYOUTS)
    one.put("train/features", 0, 0, rows())
    pickle.loads(pickle.dumps(one)).flush()
    with pytest.raises(ValueError, match="did not arrive"):
        one.flush()


def test_what_comes_from_a_group_of_workers_that_is_gone_is_dropped() -> None:
    bank = MemoryBank([InProcess(BankShard()), InProcess(BankShard())], LAYOUTS)
    gone = pickle.loads(pickle.dumps(bank))
    gone._members = bank._members  # the same shards, seen by a worker of the group before
    bank.put("train/features", 5, 0, np.ones((LAYOUTS["train"][0][1], 2), np.float32))
    new = bank.restore(2, [])
    assert new > gone.generation
    gone.put("train/features", 9, 0, np.zeros((LAYOUTS["train"][0][1], 2), np.float32))
    for block, (_, count) in enumerate(LAYOUTS["train"]):
        bank.put("train/features", 3, block, np.full((count, 2), block, np.float32))
    bank.flush()
    assert set(np.unique(bank.read("train/features", 3))) == set(range(len(LAYOUTS["train"])))


def test_a_bank_of_which_nothing_is_left_takes_no_writes_of_a_group_that_is_gone() -> None:
    """Every shard died with its machine: nobody remembers how many groups there were."""
    gone = bank(2)
    gone.restore(-1, [])
    time.sleep(0.001)
    one = bank(2)
    assert one.restore(1, []) > gone.generation
    gone._members = one._members
    gone.put("train/labels", 9, 0, np.zeros(4))
    fill(one, np.arange(N), version=2, table="train/labels")
    one.flush()
    assert one.read("train/labels", 2).tolist() == list(range(N))


def test_who_works_for_a_generation_that_is_gone_is_told_so() -> None:
    one, gone = bank(), bank()
    one.restore(-1, [])
    gone.generation = one.generation
    gone._members = one._members
    gone.refuse_if_gone()
    one.restore(-1, [])
    with pytest.raises(RuntimeError, match="is gone"):
        gone.refuse_if_gone()


def test_a_generation_does_not_go_back() -> None:
    shard = BankShard()
    shard.restore(0, [], 0, 1, 5)
    shard.put("train/labels", 0, 0, np.arange(4), 5)
    with pytest.raises(RuntimeError, match="should be gone"):
        shard.restore(0, [], 0, 1, 4)
    assert shard.generation() == 5
    assert shard.get("train/labels", 0, [0], None, 5)[0].tolist() == [0, 1, 2, 3]


def test_writes_that_failed_for_one_generation_are_not_the_next_ones() -> None:
    one = MemoryBank([Failing()], LAYOUTS)
    one.put("train/features", 0, 0, rows())
    one.generation = 3  # a labeller is told whom it works for now
    one.flush()


def test_a_shard_needs_no_pytorch():
    code = "import sys, reidray.bank; print([name for name in ('torch', 'numba') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- the queue of writes


class Slow:
    """A member whose writes arrive when they are told to."""

    def __init__(self):
        self.arrived = False

    def submit(self, method, *arguments):
        return self

    def result(self):
        return None

    def done(self):
        return self.arrived


def test_the_queue_counts_writes_on_their_way_and_the_steps_among_them():
    members = [Slow(), Slow()]
    one = MemoryBank(members, LAYOUTS)
    assert one.queue() == (0, 0)
    one.put("train/labels", 0, 0, np.zeros(4))
    assert one.queue() == (1, 0)  # not of a step
    for step in range(3):
        one.move_memory("features", 0, step, np.arange(4), np.zeros((4, 1, 2), np.float32))
    assert one.queue() == (7, 3)
    members[0].arrived = True
    assert one.queue() == (3, 3)
    one.flush()
    assert one.queue() == (0, 0)


def test_restore_forgets_the_queue_and_its_steps():
    class Counts(Slow):
        def result(self):
            return 0

    members = [Counts(), Counts()]
    one = MemoryBank(members, LAYOUTS)
    one.move_memory("features", 0, 5, np.arange(4), np.zeros((4, 1, 2), np.float32))
    assert one.queue() == (2, 1)
    one.restore(-1, [])
    assert one.queue() == (0, 0)
    one.put("train/labels", 0, 0, np.zeros(4))
    assert one.queue() == (1, 0)  # of no step


def test_threads_that_write_the_first_rows_of_a_block_at_once_lose_none():
    """Labellers of one process are threads; a slow first write gives the second one time to begin."""

    class Slow(BankShard):
        def put(self, *given, **named):
            time.sleep(0.05)
            super().put(*given, **named)

    shard, everyone = Slow(), threading.Barrier(2)

    def write(place):
        everyone.wait()
        shard.put_rows("train/features", 0, {0: (4, np.array([place]), np.full((1, 2), 1.0 + place, np.float32))})

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(shard.get("train/features", 0, [0], None)[0], [[1, 1], [2, 2], [0, 0], [0, 0]])
