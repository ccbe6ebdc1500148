"""Labelling by blocks writes what labelling at once writes, bit for bit, whoever dies, and reads little at once."""

import importlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reidray.bank import BankShard, InProcess, LostRowsError
from reidray.config import Settings
from reidray.methods import make_method
from reidray.methods.label_search import Inputs, Space
from reidray.training.block_search import BlockSearch, GrowingLists, groups, strip_length
from reidray.training.label_service import LabelService
from reidray.training.labeller import Labeller
from reidray.training.reading import Moment, block_size, stretches
from tests.training.watched_bank import COUNT, SIZES, empty_bank, in_process, put_features

WIDTH = 12


class Mortal:
    """A labeller that dies over every third call: the call is made once more, of a new one that has kept nothing."""

    def __init__(self, settings, bank):
        self.born = lambda: InProcess(Labeller(settings, bank))
        self.inside = self.born()
        self.calls = self.deaths = 0

    def submit(self, method, *arguments):
        self.calls += 1
        pending = self.inside.submit(method, *arguments)
        if self.calls % 3 == 1:
            self.deaths += 1
            self.inside = self.born()
            pending = self.inside.submit(method, *arguments)
        return pending


def drawn(spaces, seed=0):
    """Unit features around 12 centres, some images twice."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((12, spaces, WIDTH))
    features = centres[random.integers(0, 12, COUNT)] + 0.5 * random.standard_normal((COUNT, spaces, WIDTH))
    features[100:110] = features[:10]
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    return features.astype(np.float32)


def settings_of(method="scwm", feature="concat", eps=0.6, min_samples=4, centring=False, **run):
    shared = {"k1": 8, "k2": 3, "eps": eps, "min_samples": min_samples, "camera_centring": centring}
    return Settings.model_validate(
        {
            "method": {"name": method, **shared},
            "scwm": {"num_parts": 3, "difficulty_neighbours": 5, "cluster_feature": feature},
            "run": {"search_block": 30, **run},
        }
    )


def inputs(persons=None):
    """Of epoch 4, whose features are in the bank."""
    return Inputs(4, np.random.default_rng(2).integers(-1, 3, COUNT), persons)


def labelled(settings, member=in_process, members=1, persons=None, shard=lambda: InProcess(BankShard())):
    """What labelling an epoch wrote, its summary, the members, and how many rows were read at once here."""
    bank, write = bank_of(settings, shard)
    write(range(len(SIZES)))
    labellers = [member(settings, bank) for _ in range(members)]
    summary = LabelService(labellers, settings, bank).label(inputs(persons), 0)
    most = bank.most
    return written(bank, make_method(settings)), summary, labellers, most


def bank_of(settings, shard=lambda: InProcess(BankShard())):
    """A bank, and what writes the features of some shards to it."""
    bank = empty_bank(shard)
    features_NSD = drawn(4 if settings.method.name == "scwm" else 1)
    return bank, lambda blocks: put_features(bank, features_NSD, blocks)


def written(bank, method):
    tables = [bank.read(f"train/{name}", 4) for name in ("labels", *method.tables)]
    return tables + [bank.memory(name, 4) for name in method.memories]


def assert_same(blocks, whole):
    assert len(blocks[0]) >= 2  # labels and a memory at least
    for mine, theirs in zip(blocks[0], whole[0], strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert mine.tobytes() == theirs.tobytes()
    assert blocks[1] == whole[1]


METHODS = [("scwm", "concat"), ("scwm", "global"), ("cluster_contrast", "concat")]


@pytest.mark.parametrize(("method", "feature"), METHODS)
@pytest.mark.parametrize(("block", "members"), [(1, 1), (30, 2), (60, 3), (1000, 2)])
def test_blocks_write_what_one_labeller_writes(method, feature, block, members):
    whole = labelled(settings_of(method, feature, labelling="whole"))
    assert whole[1].num_clusters > 3
    blocks = labelled(settings_of(method, feature, labelling="blocks", search_block=block), members=members)
    assert_same(blocks, whole)


@pytest.mark.parametrize("method", ["scwm", "cluster_contrast"])
@pytest.mark.parametrize(("block", "member"), [(1, in_process), (60, Mortal)])
def test_features_without_their_cameras_are_the_same_whoever_makes_them(method, block, member):
    whole = labelled(settings_of(method, centring=True, labelling="whole"))
    asked = settings_of(method, centring=True, labelling="blocks", search_block=block)
    assert_same(labelled(asked, member=member, members=2), whole)
    plain = labelled(settings_of(method, labelling="whole"))
    assert (plain[0][0] != whole[0][0]).any()


@pytest.mark.parametrize("cache", [0, 0.002, 512])
def test_how_much_is_kept_changes_nothing(cache):
    assert_same(
        labelled(settings_of(labelling="blocks", labeller_cache_mb=cache), members=2),
        labelled(settings_of(labelling="whole")),
    )


@pytest.mark.parametrize("labelling", ["whole", "blocks"])
def test_labellers_that_die_now_and_then_change_nothing(labelling):
    struck = labelled(settings_of(labelling=labelling), member=Mortal, members=3)
    assert sum(member.deaths for member in struck[2]) > 0
    assert_same(struck, labelled(settings_of(labelling="whole")))


@pytest.mark.parametrize("early", [False, True])
def test_a_shard_of_the_bank_that_was_started_again_ends_labelling(early):
    settings = settings_of(labelling="blocks", label_early=early)
    bank, write = bank_of(settings)
    service = LabelService([in_process(settings, bank) for _ in range(2)], settings, bank)
    generation = bank.restore(-1, [])
    service.begin(inputs(), generation)
    write(range(3))
    bank._members[1]._target = BankShard()  # its process died; it holds nothing and knows of no generation
    with pytest.raises(LostRowsError, match="was started again"):
        service.label(inputs(), generation)


@pytest.mark.parametrize("members", [1, 3])
def test_labelling_may_begin_while_features_come_in(members):
    settings = settings_of(labelling="blocks", label_early=True)
    bank, write = bank_of(settings)
    found = threading.Semaphore(0)

    class Told(InProcess):
        def submit(self, method, *arguments):
            pending = super().submit(method, *arguments)
            found.release()
            return pending

    service = LabelService([Told(Labeller(settings, bank)) for _ in range(members)], settings, bank)
    service.begin(inputs(), 0)
    write([7, 2, 5, 4])
    assert found.acquire(timeout=60), "nobody found anything before all features were there"
    write([6, 0, 3, 1])
    summary = service.label(inputs(), 0)
    assert_same((written(bank, make_method(settings)), summary), labelled(settings_of(labelling="whole")))


def test_labelling_begins_early_only_where_that_was_asked_for():
    before = threading.active_count()
    for run in ({"labelling": "blocks"}, {"labelling": "whole", "label_early": True}):
        settings = settings_of(**run)
        bank, _ = bank_of(settings)
        LabelService([in_process(settings, bank)], settings, bank).begin(inputs(), 0)
        assert threading.active_count() == before


def test_true_identities_as_labels():
    persons = np.random.default_rng(1).integers(0, 9, COUNT) * 10
    blocks = labelled(settings_of(labelling="blocks"), members=2, persons=persons)
    assert_same(blocks, labelled(settings_of(labelling="whole"), persons=persons))


def test_no_more_than_two_blocks_of_features_are_read_at_once():
    largest = max(stretch.count for stretch in stretches([(0, count) for count in SIZES], 30))
    assert labelled(settings_of(labelling="whole"))[3] == COUNT
    assert labelled(settings_of(labelling="blocks"), members=2)[3] <= 2 * largest < COUNT


def test_timelines_name_the_tasks_and_their_parts():
    settings = settings_of(labelling="blocks")
    bank, write = bank_of(settings)
    write(range(len(SIZES)))
    service = LabelService([in_process(settings, bank)], settings, bank)
    service.trace(4)
    service.label(inputs(), 0)
    (recording,) = [pending.result() for pending in service.traced()]
    names = {span.name for span in recording.spans}
    assert names == {"find", "read", "cluster", "jaccard", "dbscan", "criteria", "centroids"}


def test_no_cluster_at_all_is_said():
    settings = settings_of(labelling="blocks", eps=1e-6, min_samples=50)
    with pytest.raises(ValueError, match=r"epoch 5: all 160 images are outliers: raise method\.eps"):
        labelled(settings, members=2)


def test_several_labellers_share_the_work_unless_told_otherwise():
    assert settings_of(labellers=2).labels_by_blocks
    assert not settings_of(labellers=1).labels_by_blocks
    assert not settings_of(labellers=2, labelling="whole").labels_by_blocks
    assert settings_of(labellers=1, labelling="blocks").labels_by_blocks


def test_an_approximate_search_by_blocks_is_refused():
    tree = {"method": {"search": "approximate"}, "run": {"labelling": "blocks"}}
    with pytest.raises(ValueError, match=r"run\.labelling=blocks searches exactly"):
        Settings.model_validate(tree)
    assert not Settings.model_validate({**tree, "run": {"labellers": 2}}).labels_by_blocks


def test_blocks_grow_where_there_would_be_more_than_128_of_them():
    assert block_size(4096, [(0, 100_000), (100_000, 424_288)]) == 4096
    assert block_size(4096, [(0, 10_000_000)]) == 78_125
    assert block_size(4096, []) == 4096
    assert len(stretches([(0, 1)] * 524_415, block_size(4096, [(0, 524_415)]))) == 128


def test_stretches_are_whole_shards_of_enough_images():
    layout = [(0, 3), (3, 1), (4, 4), (8, 9), (17, 2)]
    found = stretches(layout, 4)
    assert [(stretch.first, stretch.count, list(stretch.shards)) for stretch in found] == [
        (0, 4, [0, 1]),
        (4, 4, [2]),
        (8, 9, [3]),
        (17, 2, [4]),
    ]
    assert stretches([], 4) == []


def test_clusters_are_taken_together_while_their_images_are_few():
    assert groups(np.array([3, 4, 1, 9, 2, 2]), 8) == [range(0, 3), range(3, 4), range(4, 6)]
    assert groups(np.array([20]), 8) == [range(0, 1)]


# ---- the plan of a large run


@pytest.mark.parametrize(
    ("images", "block", "machines"), [(1000, 100, 1), (1000, 100, 3), (64_000, 1000, 40), (90, 100, 2), (25_600, 10, 4)]
)
def test_the_plan_counts_the_tasks_and_the_blocks_that_they_read(images, block, machines, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    plan = importlib.import_module("plan")
    layout = [(first, 10) for first in range(0, images, 10)]
    blocks = stretches(layout, block_size(block, layout))
    strip = strip_length(len(blocks) * (len(blocks) - 1) // 2, machines)
    search = GrowingLists(Moment(0, 0), Space("features"), blocks, 5, strip=strip, there=lambda _: True)
    calls = [task.arguments() for task in search.tasks]
    read = sum(1 + len([other for other, _ in others if other != rows]) for _, _, rows, _, others in calls)
    size = plan.Size(images, 1, 8, machines, block, 10, 5)
    found = dict(plan.planned(size, plan.Costs(0, 0, 0, 0, 0, 0, 0)))
    assert found["block tasks of a labelling"].startswith(f"{len(calls):,}, ")
    assert found["blocks that tasks read"].startswith(f"{read:,}, ")


# ---- progress


class Counted:
    """A labeller that notes what share was done when it was asked for the next comparison."""

    def __init__(self, settings, bank):
        self.inside, self.search, self.shares = in_process(settings, bank), None, []

    def submit(self, method, *arguments):
        if method == "find":
            self.shares.append(self.search.share_done())
        return self.inside.submit(method, *arguments)


def test_the_share_that_is_done_counts_pairs_of_images():
    settings = settings_of("cluster_contrast")
    bank, write = bank_of(settings)
    write(range(len(SIZES)))
    member = Counted(settings, bank)
    search = BlockSearch([member], bank, inputs(), 40, None)  # blocks of 44, 76 and 40 images
    member.search = search
    try:
        assert search.share_done() == 0
        search.nearest(Space("features"), 8).indices()
        assert search.share_done() == 1
    finally:
        search.close()
    pairs = [44 * 44, 76 * 76, 40 * 40, 44 * 76, 44 * 40, 76 * 40]
    np.testing.assert_allclose(member.shares, [sum(pairs[:task]) / sum(pairs) for task in range(6)])


def test_a_search_that_is_still_to_come_counts():
    settings = settings_of("cluster_contrast")
    bank, write = bank_of(settings)
    write(range(len(SIZES)))
    search = BlockSearch([in_process(settings, bank)], bank, inputs(), 40, None, 2)
    try:
        search.nearest(Space("features"), 8).indices()
        assert search.share_done() == 0.5
        search.nearest(Space("features"), 5).indices()
        assert search.share_done() == 1
    finally:
        search.close()


def test_methods_say_how_often_they_search():
    def searches(labels="dbscan", **acrm):
        return make_method(
            Settings.model_validate({"method": {"name": "acrm", "labels": labels}, "acrm": acrm})
        ).searches

    assert searches(order="neighbours") == 2  # for the order of the graphs, and for the labels
    assert searches(order="neighbours", refine=False) == searches(order="shuffled") == 1
    assert searches("ground_truth", order="neighbours") == 1  # labels need none
    assert make_method(settings_of("scwm")).searches == 1  # all spaces at once


def test_whoever_waits_for_labels_is_told_how_far_they_are(monkeypatch):
    monkeypatch.setattr("reidray.training.label_service._LOOK_SECONDS", 0.0)
    settings = settings_of(labelling="blocks")
    bank, write = bank_of(settings)
    write(range(len(SIZES)))
    shares = []
    LabelService([in_process(settings, bank)], settings, bank).label(inputs(), 0, shares.append)
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


class Slow:
    """A labeller that takes its time, and counts comparisons."""

    def __init__(self, settings, bank):
        self.inside, self.found = in_process(settings, bank), 0

    def submit(self, method, *arguments):
        if method == "find":
            self.found += 1
            time.sleep(0.05)
        return self.inside.submit(method, *arguments)


def test_who_is_interrupted_while_waiting_does_not_wait_for_the_rest(monkeypatch):
    monkeypatch.setattr("reidray.training.label_service._LOOK_SECONDS", 0.01)
    settings = settings_of(labelling="blocks", search_block=1)
    bank, write = bank_of(settings)
    write(range(len(SIZES)))
    labeller = Slow(settings, bank)

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LabelService([labeller], settings, bank).label(inputs(), 0, interrupted)
    begun = labeller.found
    assert begun <= 2
    time.sleep(0.2)
    assert labeller.found == begun
