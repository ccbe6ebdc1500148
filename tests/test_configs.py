"""Every file in configs/ loads, and its header can be believed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reidray.section import epochs_of
from reidray.settings_io import from_file, from_words, settings_from
from reidray.tuning.checks import check_search
from reidray.tuning.search_file import read_search
from tests.shell_lines import ROOT, job_lines, parsed

SEARCHES = sorted((ROOT / "configs").glob("search_*.yaml"))
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path not in SEARCHES)
ABLATIONS = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))
MADE_BY_PRETRAINING = "pretrain_small.yaml"  # what it makes ships in the package, which is its measured result


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _header(path: Path) -> str:
    lines = path.read_text().splitlines()
    body = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:body])


@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_every_config_loads(path: Path) -> None:
    settings_from([from_file(path), *from_words(["data.root=DIR"])])


@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_every_header_has_a_command_for_this_config_that_parses(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = [parsed(job, words, monkeypatch, tmp_path) for job, words in job_lines(_header(path))]
    own = settings_from([from_file(path), *from_words(["data.root=DIR"])])
    assert own.hash() in [command.settings.hash() for command in commands]


@pytest.mark.parametrize("path", SEARCHES, ids=_name)
def test_every_search_can_start_as_its_header_says(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [(job, words) for job, words in job_lines(_header(path)) if job == "jobs/tune.py"]
    commands = [parsed(job, words, monkeypatch, tmp_path) for job, words in lines]
    assert commands
    for command in commands:
        assert Path(command.options.search) == path.relative_to(ROOT)
        check_search(read_search(path), command.settings)


@pytest.mark.parametrize("path", [*CONFIGS, *SEARCHES], ids=_name)
def test_every_header_says_what_was_measured_or_that_it_was_not_yet_run(path: Path) -> None:
    if path.name != MADE_BY_PRETRAINING:
        header = " ".join(_header(path).split())
        assert re.search(r"Measured: (not yet run|.*\d+(\.\d+)? mAP)", header)
        assert "Hardware: " in header


@pytest.mark.parametrize("path", ABLATIONS, ids=_name)
def test_the_command_for_market1501_in_an_ablation_differs_from_the_paper_as_the_config_does(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = settings_from([from_file(ROOT / "configs" / "ablations" / "full.yaml")])
    own = settings_from([from_file(path)])
    paper = settings_from([from_file(ROOT / "configs" / "scwm_market1501.yaml"), *from_words(["data.root=DIR"])])
    market = [
        command.settings
        for job, words in job_lines(_header(path))
        if (command := parsed(job, words, monkeypatch, tmp_path)).settings.data.dataset == "market1501"
    ]
    if path.name == "full.yaml":
        assert market == []
        return
    assert len(market) == 1
    assert _changes(full.model_dump(), own.model_dump()) == _changes(paper.model_dump(), market[0].model_dump(), "data")
    assert _changes(full.model_dump(), own.model_dump())


def _changes(before: dict[str, Any], after: dict[str, Any], *left_out: str) -> dict[str, Any]:
    return {
        f"{section}.{name}": after[section][name]
        for section in before
        if section not in left_out
        for name in before[section]
        if before[section][name] != after[section][name]
    }


def test_full_ablation_reads_the_paper_as_the_market1501_config_does() -> None:
    full = settings_from([from_file(ROOT / "configs" / "ablations" / "full.yaml")])
    paper = settings_from([from_file(ROOT / "configs" / "scwm_market1501.yaml"), *from_words(["data.root=DIR"])])
    written = yaml.safe_load((ROOT / "configs" / "ablations" / "full.yaml").read_text())
    for section, values in written.items():
        for name in values:
            own, theirs = (getattr(getattr(settings, section), name) for settings in (full, paper))
            if name == "part_refinement_from":  # a share here, since this run is shorter
                own = epochs_of(own, paper.train.epochs)
            assert own == theirs, f"{section}.{name}"


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


def test_rows_of_the_papers_tables_are_settings_and_what_is_compared_is_a_row() -> None:
    tables = yaml.safe_load((ROOT / "benchmarks" / "paper_tables.yaml").read_text())
    for table in tables["tables"].values():
        for row in table["rows"].values():
            words = [*tables["common"], *table.get("common", []), *row["settings"].split()]
            files = [from_file(ROOT / word[1:]) for word in words if word.startswith("@")]
            settings_from([*files, *from_words([word for word in words if not word.startswith("@")])])
        for better, worse in table["pairs"]:
            assert {better, worse} <= set(table["rows"])
            papers = [table["rows"][name].get("paper") for name in (better, worse)]
            assert None in papers or papers[0] > papers[1], f"{table['title']}: the paper has {better} above {worse}"
