"""The grid of methods: its trials are settings of a run, its runs are told apart, documents have its figures."""

import importlib
import re
import subprocess
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from reidray.settings_io import from_file, from_words, settings_from

ROOT = Path(__file__).resolve().parents[1]
QUESTION = yaml.safe_load((ROOT / "benchmarks" / "grid.yaml").read_text())
WEIGHTS = "weights/osnet_x0_25_msmt17.pth"
STEADY = "method.camera_centring=true train.ema=0.99"
NONE = "scwm.weight_place=none scwm.separation_weight=0 method.update=average"


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("grid")


def trials() -> list[tuple[str, int]]:
    methods = QUESTION["methods"].items()
    return [(name, trial) for name, own in methods for trial in range(len(QUESTION["trials"][own["trials"]]))]


def settings_of(grid, data, method, trial, variant):
    words = grid.words_of(QUESTION, data, method, trial, variant, root="crops", weights=WEIGHTS)
    files = [from_file(ROOT / word[1:]) for word in words if word.startswith("@")]
    return settings_from([*files, *from_words([word for word in words if not word.startswith("@")])])


@pytest.mark.parametrize(("method", "trial"), trials())
def test_every_trial_is_settings_that_a_run_takes(grid, method, trial):
    for data in QUESTION["data"]:
        settings = settings_of(grid, data, method, trial, "train.ema=0.9")
        assert settings.train.ema == 0.9
        assert settings.method.name in (method, "scwm", "cluster_contrast")


def test_every_method_has_eight_trials():
    assert {len(listed) for listed in QUESTION["trials"].values()} == {8}


def test_runs_are_told_apart_by_seed_settings_and_start_weights_and_not_by_folders(grid):
    def key(variant="", root="here", weights=WEIGHTS, seed=1):
        words = grid.words_of(QUESTION, "cuhk01", "scwm", 3, variant, root=root, weights=weights)
        return grid.key({"data": "cuhk01", "method": "scwm", "split": "test", "seed": seed, "words": words})

    assert key() == key(root="there") == key(weights="elsewhere/osnet_x0_25_msmt17.pth")
    others = [key(seed=2), key("train.ema=0"), key(weights="other.pth"), key("model.weights=shipped")]
    assert len({key(), *others}) == 5
    stored = grid.without_places(grid.words_of(QUESTION, "cuhk01", "scwm", 3, "", root="here", weights=WEIGHTS))
    assert grid.without_places(stored) == stored  # what is read back has the key of what was written


def test_queries_are_paired_only_where_all_seeds_have_the_same(grid):
    ones = [{"precisions": [0.5, 0.7]}, {"precisions": [0.2, 0.4]}]
    others = [{"precisions": [0.4, 0.7]}, {"precisions": [0.1, 0.1]}]
    np.testing.assert_allclose(grid.apart(ones, others, same_queries=True), [[10, 0], [10, 30]])
    np.testing.assert_allclose(grid.apart(ones, others, same_queries=False), [[5, 5], [20, 20]])


def test_the_best_by_the_first_seed_are_tried_with_the_others(grid, capsys):
    mAP = {(0, 100): 60, (0, 101): 50, (1, 100): 59, (1, 101): 58, (2, 100): 10, (2, 101): 90}
    asked = []

    def tried(some, seeds):
        asked.append((some, seeds))
        return {number: np.mean([mAP[number, seed] for seed in seeds]) for number in some}

    assert grid.chosen([0, 1, 2], [100, 101], 2, tried, "scwm") == 1
    assert asked == [([0, 1, 2], [100]), ([0, 1], [100, 101])]
    assert "scwm: of the best, all seeds: 0: 55.0, 1: 58.5" in capsys.readouterr().out
    assert grid.chosen([0, 1, 2], [100, 101], None, tried, "scwm") == 1  # of the means over both: 55, 58.5, 50
    assert grid.chosen([0, 1, 2], [100], None, tried, "scwm") == 0


# ---- the documents: commands that are taken, and figures of the results


def commands() -> list[list[str]]:
    """Every call of grid.py in the documents, as bash would make it."""
    found = []
    for document in sorted((ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            if "benchmarks/grid.py" in block or "$GRID" in block:
                script = "python() { printf '%s\\0' \"$@\"; echo; }\n" + block
                said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
                calls = [line.rstrip("\0").split("\0") for line in said.splitlines()]
                found += [words[1:] for words in calls if words[0] == "benchmarks/grid.py"]
    return found


def test_documented_commands_are_taken(grid, capsys):
    found = commands()
    assert len(found) > 20
    for words in found:
        try:
            options = grid.parsed(QUESTION, words)
        except SystemExit:
            pytest.fail(f"{words}: {capsys.readouterr().err}")
        for (method, taken), variant in product(options.method, options.variant or ["="]):
            trial = int(taken or options.choose or 0)
            settings_of(grid, options.data, method, trial, variant.partition("=")[2])


@pytest.mark.parametrize(("method", "said"), [("sc", "unknown method sc"), ("pplr=8", "has no trial 8")])
def test_a_method_or_trial_that_is_not_there_is_said(grid, capsys, method, said):
    with pytest.raises(SystemExit):
        grid.parsed(QUESTION, ["--output", "o", "--data", "cuhk01", "--method", method])
    assert said in capsys.readouterr().err


# ---- figures

ROWS = {
    "Cluster Contrast": ("cluster_contrast", ""),
    "Cluster Contrast and stripes": ("stripes", ""),
    "SCWM": ("scwm", ""),
    "SCWM, equal rows, without weights and separation": ("scwm_rows", ""),
    "SCWM with the paper's losses": ("scwm_as_printed", ""),
    "SCWM, parsed parts alone": ("scwm", NONE),
    "PPLR": ("pplr", ""),
    "ACRM": ("acrm", ""),
    "IHC": ("ihc", ""),
    "Cluster Contrast, true labels": ("true_labels", ""),
}


def rows_below(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table with trials below a heading, without bold type."""
    text = (ROOT / "docs" / document).read_text().split(f"\n{heading}\n")[1]
    table = re.search(r"\| method \| trial .*?\n\|[-|]+\n(.*?)\n\n", text, re.DOTALL)
    assert table
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


@pytest.mark.parametrize(
    ("data", "file", "document", "heading", "common", "seeds"),
    [
        ("cuhk01", "grid_crops.jsonl", "real-crops.md", "## Methods on CUHK01", "", 5),
        ("cuhk03", "grid_crops.jsonl", "real-crops.md", "## CUHK03", "", 5),
        ("drawn_hard", "grid_drawn_hard.jsonl", "results.md", "### Methods on hard drawn pedestrians", STEADY, 3),
    ],
)
def test_tables_of_methods_are_those_of_the_results(grid, data, file, document, heading, common, seeds):
    made = grid.read(ROOT / "benchmarks" / "results" / file)
    shown = rows_below(document, heading)
    assert len(shown) > 2
    for label, trial, *figures in shown:
        method, variant = ROWS[label]
        centring = "method.camera_centring=true" if method != "ihc" else ""  # it searches no neighbours
        settings = f"{variant} {common.replace('method.camera_centring=true', centring)}"
        words = grid.words_of(QUESTION, data, method, int(trial), settings, root="", weights=WEIGHTS)
        runs = [
            made[grid.key({"data": data, "method": method, "split": "test", "seed": seed, "words": words})]
            for seed in range(seeds)
        ]
        line = grid.table({label: runs}).splitlines()[-1]
        assert [cell.strip() for cell in line.strip("|").split("|")][2:] == figures, label
