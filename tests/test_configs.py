"""Every file in configs/ loads, and its header can be believed; cluster.yaml is one that Ray would take."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reidray.launch.space import check_search, read_search
from reidray.overlay import from_file, from_words, settings_from
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
    commands = [parsed(job, words, monkeypatch, tmp_path) for job, words in job_lines(_header(path))]
    assert commands
    for command in commands:
        assert command.options.search == path.relative_to(ROOT)
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
            assert getattr(getattr(full, section), name) == getattr(getattr(paper, section), name), f"{section}.{name}"


# --- cluster.yaml -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return read


def _accepted(cluster: dict[str, Any]) -> dict[str, Any]:
    """What Ray makes of a cluster's description, by the checks that `ray up` begins with; no network, no account."""
    from ray.autoscaler._private.providers import _NODE_PROVIDERS
    from ray.autoscaler._private.util import prepare_config, validate_config

    assert cluster["provider"]["type"] in _NODE_PROVIDERS
    full: dict[str, Any] = prepare_config(copy.deepcopy(cluster))
    validate_config(full)
    return full


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    full = _accepted(cluster)
    assert full["head_node_type"] in full["available_node_types"]


def test_ray_refuses_a_cluster_with_a_misspelt_field(cluster: dict[str, Any]) -> None:
    from jsonschema.exceptions import ValidationError

    with pytest.raises(ValidationError):
        _accepted({**cluster, "idle_timeout_minuets": 5})


def test_the_cluster_has_a_cpu_head_and_gpu_workers_from_zero_on_spot(cluster: dict[str, Any]) -> None:
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    for worker in types.values():
        assert worker["min_workers"] == 0 < worker["max_workers"] <= cluster["max_workers"]
        assert worker["resources"]["GPU"] >= 1
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_the_token_reaches_every_node_and_authentication_is_on_where_ray_starts(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert len(starts) == 1
        assert starts[0].startswith("export RAY_AUTH_MODE=token;")


def test_the_dashboard_listens_on_the_head_alone(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


def test_every_container_gets_shared_memory(cluster: dict[str, Any]) -> None:
    for options in ("head_run_options", "worker_run_options"):
        assert any(option.startswith("--shm-size=") for option in cluster["docker"][options])


def test_the_images_hold_the_ray_that_is_pinned(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    for image in ("head_image", "worker_image"):
        assert cluster["docker"][image].startswith(f"rayproject/ray:{pinned[1]}-py311-")
    assert any("constraints.txt" in command for command in cluster["setup_commands"])


def test_what_is_copied_to_the_nodes_leaves_no_code_out(cluster: dict[str, Any]) -> None:
    for pattern in cluster["rsync_exclude"]:
        hidden = [path for path in (ROOT / "reidray").rglob("*") if path.name == pattern.strip("/")]
        assert pattern.startswith("/") or pattern == "__pycache__" or not hidden


def test_there_is_no_secret_in_the_cluster_file() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE|password|aws_secret|[0-9a-f]{40}", text, re.IGNORECASE)


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
