"""cluster.yaml is one that Ray would take; each of our own checks finds what was made wrong in it, and only that."""

from __future__ import annotations

import copy
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from reidray.actors.cluster import chosen_workers
from reidray.deployment import cluster_file, rayjob_file
from reidray.deployment.cluster_file import EC2_FIELDS, findings
from reidray.deployment.yaml_file import YamlFile, read
from tests.shell_lines import ROOT, job_lines, parsed

FILE = ROOT / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return tree


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("no token")
    return tmp_path


def filled_in(text: str) -> str:
    return text.replace("MACHINE_IMAGE", "ami-1").replace("FILE_SYSTEM_ADDRESS", "10.0.0.7")


def found(text: str, home: Path, root: Path = ROOT) -> list[str]:
    return findings(YamlFile(text, yaml.safe_load(text), root, home))


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


# --- Ray's checks -----------------------------------------------------------------------------------------------------


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


def test_ray_start_knows_every_option_it_is_given(cluster: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {name for option in start.params for name in option.opts}
    for group in ("head", "worker"):
        given = set(re.findall(r"--[\w-]+", cluster[f"{group}_start_ray_commands"][-1]))
        assert given
        assert given <= known


# --- ours -------------------------------------------------------------------------------------------------------------


def test_the_cluster_as_it_stands_only_waits_for_what_is_the_readers(home: Path) -> None:
    said = found(FILE.read_text(), home)
    assert len(said) == 2
    assert "MACHINE_IMAGE stands for something of yours" in said[0]
    assert "FILE_SYSTEM_ADDRESS stands for something of yours" in said[1]
    assert found(filled_in(FILE.read_text()), home) == []


TOKEN = '  "~/.ray/auth_token": "~/.ray/auth_token"\n'
START = "export RAY_AUTH_MODE=token; "


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (TOKEN, "", "the nodes would have no token"),
        ('"~/.ray/auth_token": "~/.ray/auth_token"', '"~/.ray/auth_token": "~/.ray/token"', "~/.ray/token, which is"),
        (
            f"{START}ulimit -n 65536;\n    ray start --head",
            "ray start --head",
            "head_start_ray_commands: expected `exp",
        ),
        (
            f"{START}ulimit -n 65536;\n    ray start --addr",
            "ray start --addr",
            "worker_start_ray_commands: expected `ex",
        ),
        (START, "export RAY_AUTH_MODE=disabled; ", "start_ray_commands: expected `export RAY_AUTH_MODE=token;`"),
        (
            "max_workers: 4\nupscaling",
            "max_worker: 4\nupscaling",
            "unknown field max_worker: did you mean max_workers?",
        ),
        (
            "idle_timeout_minutes: 10",
            "idle_timeout_minutes: ten",
            "idle_timeout_minutes: expected type number, got str",
        ),
        ("ray start --head", "ray begin --head", "head_start_ray_commands: expected exactly one command"),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "got 0.0.0.0: the dashboard runs what it is given"),
        ("--dashboard-host=127.0.0.1 ", "", "got none: the dashboard runs what it is given"),
        ("2.60.0-py311-gpu", "2.59.1-py311-gpu", "docker.worker_image: expected an image of Ray 2.60.0"),
        ("2.60.0-py311-cpu", "2.60.01-py311-cpu", "docker.head_image: expected an image of Ray 2.60.0"),
        ("2.60.0-py311-gpu", "2.60.0-py312-gpu", "docker.head_image 311, docker.worker_image 312"),
        ('["--shm-size=10gb"]', "[]", "docker.head_run_options: expected --shm-size"),
        ('["--shm-size=64gb"]', '["--ipc=private"]', "docker.worker_run_options: expected --shm-size"),
        (', "-v /mnt/spill:/mnt/spill"', "", "docker.run_options: expected -v DIR:/mnt/spill"),
        (
            "--object-spilling-directory=/mnt/spill --autoscaling",
            "--autoscaling",
            "head_start_ray_commands: expected --object-spilling-directory",
        ),
        (
            "InstanceMarketOptions:",
            "InstanceMarketOption:",
            "InstanceMarketOption: did you mean InstanceMarketOptions?",
        ),
        ("SpotInstanceType:", "SpotInstancesType:", "SpotOptions: unknown field SpotInstancesType: did you mean Spot"),
        ("VolumeSize: 140", "VolumeSise: 140", "BlockDeviceMappings.Ebs: unknown field VolumeSise: did you mean Vol"),
        ("HttpTokens", "HttpToken", "MetadataOptions: unknown field HttpToken: did you mean HttpTokens?"),
        ("      ImageId: ami-1\n", "", "expected ImageId, found none"),
        ('"~/reidray": "."', '"~/reidray": "./reidary"', "./reidary, which is to be copied to ~/reidray, is not there"),
        ("-c ~/reidray/constraints.txt ", "", "setup_commands: expected `pip install -c"),
        ("region: us-west-2", "region: us-west-2 # AKIAABCDEFGHIJKLMNOP", "holds an access key of AWS: take it out"),
        ("- ray stop", "- export RAY_AUTH_TOKEN=e3b0c44298fc1c14", "holds a token: take it out"),
        ("- ray stop", "- echo e3b0c44298fc1c149afbf4c8996fb924", "holds something like a token: take it out"),
        ("- ray stop", "- export AWS_SECRET_ACCESS_KEY=x", "holds a password or key: take it out"),
        ("- ray stop", "- git clone https://me:it@host/x", "holds a password in a URL: take it out"),
    ],
)
def test_what_was_made_wrong_is_found_and_nothing_else(old: str, new: str, sentence: str, home: Path) -> None:
    said = found(changed(filled_in(FILE.read_text()), old, new), home)
    assert said
    assert all(sentence in one for one in said), said


def test_a_secret_is_not_repeated_in_the_finding(home: Path) -> None:
    said = found(filled_in(FILE.read_text()) + "# AKIAABCDEFGHIJKLMNOP\n", home)
    assert len(said) == 1
    assert "ABCDEFGH" not in said[0]


def test_a_token_that_was_not_made_yet_is_missed_with_advice(tmp_path: Path) -> None:
    said = found(filled_in(FILE.read_text()), tmp_path)
    assert len(said) == 1
    assert "make it with `ray get-auth-token --generate`" in said[0]


def test_a_cluster_of_other_machines_than_aws_has_other_fields(home: Path) -> None:
    text = filled_in(FILE.read_text()).replace("type: aws", "type: gcp").replace("InstanceType:", "machineType:")
    assert found(text, home) == []


def test_a_file_that_is_no_description_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for text, sentence in (("[1, 2]", "expected fields with values, got list"), ("a: [", "is not readable as YAML")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read(tmp_path / "x.yaml", root=ROOT, home=tmp_path)


@pytest.mark.parametrize("path", EC2_FIELDS)
def test_the_fields_of_ec2_are_those_that_botocore_knows(path: str) -> None:
    loaders = pytest.importorskip("botocore.loaders")
    shapes = loaders.Loader().load_service_model("ec2", "service-2")["shapes"]
    shape = shapes["RunInstancesRequest"]
    for name in path.split(".") if path else ():
        shape = shapes[shape["members"][name]["shape"]]
        if shape["type"] == "list":
            shape = shapes[shape["member"]["shape"]]
    assert set(EC2_FIELDS[path].split()) == set(shape["members"])


# --- what it is meant to be -------------------------------------------------------------------------------------------


def test_the_cluster_has_a_cpu_head_that_stays_and_gpu_workers_from_zero_on_spot(cluster: dict[str, Any]) -> None:
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"]
    for worker in types.values():
        assert worker["min_workers"] == 0 < worker["max_workers"] <= cluster["max_workers"]
        assert worker["resources"]["GPU"] >= 1
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_what_is_copied_to_the_nodes_leaves_no_code_out(cluster: dict[str, Any]) -> None:
    for pattern in cluster["rsync_exclude"]:
        hidden = [path for path in (ROOT / "reidray").rglob("*") if path.name == pattern.strip("/")]
        assert pattern.startswith("/") or pattern == "__pycache__" or not hidden


def test_what_jobs_are_sent_without_is_no_code() -> None:
    left_out = [line for line in (ROOT / ".rayignore").read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("/") for line in left_out)
    assert not {"reidray", "jobs", "configs", "constraints.txt"} & {line.strip("/") for line in left_out}


def test_the_job_in_the_header_is_one_that_can_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [line.lstrip("# ") for line in FILE.read_text().splitlines() if line.startswith("#")]
    jobs = job_lines("\n".join(lines))
    assert [job for job, _ in jobs] == ["jobs/check_cluster.py", "jobs/train.py"]
    settings = parsed(*jobs[1], monkeypatch, tmp_path).settings
    assert settings.run.max_failures == -1  # spot machines go
    assert settings.run.start_timeout >= 600  # and others take minutes to come
    with pytest.raises(ValueError, match="GPU"):
        chosen_workers(settings, {"CPU": 8.0})  # the head alone: more is asked for, and waited for
    assert settings.run.dir is not None
    assert settings.run.dir.startswith("/mnt/shared/")
    head = yaml.safe_load(FILE.read_text())["head_start_ray_commands"][-1]
    assert f"--labels={settings.run.service_label}" in head.split()  # the bank is not on spot machines


def test_the_job_prints_findings_and_ends_with_status_1_and_with_0_when_there_are_none(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(filled_in(FILE.read_text()))
    bad.write_text(FILE.read_text())
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["jobs/check_cluster.py", str(good)])
    runpy.run_path(str(ROOT / "jobs" / "check_cluster.py"), run_name="__main__")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "argv", ["jobs/check_cluster.py", str(good), str(bad)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / "check_cluster.py"), run_name="__main__")
    assert ended.value.code == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all(line.startswith(f"{bad}: line ") for line in said)


@pytest.mark.parametrize(("name", "kind"), [("cluster.yaml", cluster_file), ("kuberay/rayjob.yaml", rayjob_file)])
def test_whatever_stands_in_a_field_gives_sentences(name: str, kind: ModuleType, home: Path) -> None:
    """Every field and every member of a list in turn is a number, a list, fields, or a text with an open quote."""
    text = (ROOT / name).read_text()

    def places(tree: Any) -> Iterator[tuple[Any, Any]]:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
            yield tree, key
            yield from places(value)

    tree = yaml.safe_load(text)
    for holder, key in list(places(tree)):
        stood = holder[key]
        for odd in (None, 5, "x'", [5], {"a": 1}):
            holder[key] = odd
            found = kind.findings(YamlFile(text, tree, ROOT, home))
            assert all(isinstance(sentence, str) for sentence in found)
        holder[key] = stood
