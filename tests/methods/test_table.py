"""The table of methods: what the settings name is made, with what it says of itself."""

import pytest

from reidray.config import Settings
from reidray.methods import METHODS, make_method
from reidray.methods.aac import AAC
from reidray.methods.acrm import ACRM
from reidray.methods.buc import BUC
from reidray.methods.cluster_contrast import ClusterContrast
from reidray.methods.ihc import IHC
from reidray.methods.pplr import PPLR
from reidray.methods.scwm import SCWM

KINDS = [
    ("cluster_contrast", ClusterContrast, 0),
    ("scwm", SCWM, 4),
    ("aac", AAC, 0),
    ("pplr", PPLR, 0),
    ("acrm", ACRM, 0),
    ("buc", BUC, 0),
    ("ihc", IHC, 0),
]


@pytest.mark.parametrize(("name", "kind", "parts"), KINDS)
def test_the_settings_name_the_method(name, kind, parts):
    method = make_method(Settings(method={"name": name}, scwm={"num_parts": 4}))
    assert type(method) is kind
    assert method.num_parts == parts


def test_every_method_of_the_table_is_made_here():
    assert set(METHODS) == {name for name, _, _ in KINDS}


def test_stripes_are_no_masks():
    assert make_method(Settings(method={"name": "scwm"}, scwm={"parts": "stripes"})).num_parts == 0


@pytest.mark.parametrize("name", METHODS)
def test_only_what_reads_annotations_says_that_it_is_weakly_supervised(name):
    method = make_method(Settings(method={"name": name}))
    assert method.supervision == ("weakly supervised" if "attributes" in method.needs else "unsupervised")


@pytest.mark.parametrize("name", METHODS)
def test_without_stages_every_epoch_labels_anew_and_the_rate_falls_every_so_many(name):
    settings = Settings(method={"name": name}, train={"epochs": 5, "lr_every": 2, "lr_factor": 0.5})
    if settings.own is not None and settings.own.has_stages:
        return
    plans = make_method(settings).schedule(100)
    assert [plan.rate for plan in plans] == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert all(plan.relabel and not plan.new_optimiser for plan in plans)
