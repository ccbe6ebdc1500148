"""kuberay/rayjob.yaml is one whose cluster Ray's autoscaler understands; each check finds what was made wrong in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from reidray.deployment.rayjob_file import findings
from reidray.deployment.yaml_file import YamlFile
from tests.shell_lines import ROOT, parsed

FILE = ROOT / "kuberay" / "rayjob.yaml"


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return tree


def filled_in() -> str:
    return FILE.read_text().replace("REGISTRY", "registry.example")


def found(text: str) -> list[str]:
    return findings(YamlFile(text, yaml.safe_load(text), ROOT, Path("/")))


def test_the_run_as_it_stands_only_waits_for_what_is_the_readers() -> None:
    said = found(FILE.read_text())
    assert len(said) == 2
    assert all("REGISTRY stands for something of yours" in one for one in said)
    assert found(filled_in()) == []


SHM = "emptyDir: {medium: Memory, sizeLimit: 10Gi}"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("kind: RayJob", "kind: RayJobs", "kind: expected RayJob, got RayJobs"),
        ("name: reidray-one", "name: Reidray_1", "metadata.name: expected at most 47"),
        ("apiVersion: ray.io/v1", "apiVersion: ray.io/v1alpha1", "apiVersion: expected ray.io/v1"),
        ("backoffLimit", "backofLimit", "spec: unknown field backofLimit: did you mean backoffLimit?"),
        ("rayVersion:", "rayVersions:", "rayVersion"),
        ("idleTimeoutSeconds: 600", "idleTimeoutSecond: 600", "did you mean idleTimeoutSeconds?"),
        ("serviceType:", "servicetype:", "headGroupSpec: unknown field servicetype: did you mean serviceType?"),
        ("groupName: gpu", "group: gpu", "workerGroupSpecs[0]"),
        ("mode: token", "mode: disabled", "authOptions.mode: expected token, got disabled"),
        ("    authOptions:\n      mode: token\n", "", "authOptions.mode: expected token, got none"),
        ("serviceType: ClusterIP", "serviceType: LoadBalancer", "serviceType: expected ClusterIP, got LoadBalancer"),
        ("serviceType: ClusterIP", "enableIngress: true", "enableIngress: expected false"),
        ("          restartPolicy: Never", "          hostNetwork: true", "hostNetwork: expected none"),
        ('rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "rayVersion: expected 2.60.0"),
        ("image: registry.example/reidray:2.60.0", "image: registry.example/reidray:2.61.0", "image of Ray 2.60.0"),
        ('num-gpus: "0"', "num-gpus: 0", "headGroupSpec.rayStartParams.num-gpus: expected a text, got 0"),
        ("        object-spilling-directory: /mnt/spill\n        dis", "        dis", "headGroupSpec.rayStartPar"),
        ("{name: spill, mountPath: /mnt/spill}", "{name: spill, mountPath: /mnt/x}", "expected an emptyDir at /m"),
        ("replicas: 1\n", "replicas: 5\n", "expected minReplicas <= replicas <= maxReplicas, got 0, 5 and 4"),
        ("        minReplicas: 0\n", "", "expected numbers for minReplicas, replicas and maxReplicas"),
        ("enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false", "expected enableInTreeAu"),
        ('limits: {cpu: "8", memory: 32Gi,', 'limits: {cpu: "8",', "headGroupSpec: expected memory in requests and in"),
        ('requests: {cpu: "40",', "requests: {", "workerGroupSpecs[0]: expected cpu in requests and in limits"),
        ('120Gi, nvidia.com/gpu: "4"}\n                  limits', "120Gi}\n                  limits", "got None and 4"),
        ('nvidia.com/gpu: "4"', 'nvidia.com/gpu: "0.5"', "expected a whole number of nvidia.com/gpu, got 0.5"),
        (SHM, "emptyDir: {sizeLimit: 10Gi}", "headGroupSpec: expected an emptyDir with medium: Memory at /dev/shm"),
        (SHM, "emptyDir: {medium: Memory}", "headGroupSpec: /dev/shm needs a sizeLimit below"),
        (SHM, "emptyDir: {medium: Memory, sizeLimit: 32Gi}", "needs a sizeLimit below"),
        ("claimName: reidray-shared}}\n    workerG", "claimName: x}}\n    workerG", "expected one persistentVol"),
        ("run.dir=/mnt/shared/runs/one ", "", "expected run.dir=DIR on the shared volume, found none"),
        ("run.dir=/mnt/shared/runs/one", "run.dir=/home/ray/one", "expected run.dir below /mnt/shared"),
        ("data.packed=/mnt/shared/market", "data.packed=/data/market", "expected data.packed below /mnt/shared"),
        ("configs/scwm_market1501.yaml", "configs/scwm_market.yaml", "configs/scwm_market.yaml is not in the image"),
        ("/home/ray/reidray/jobs/train.py", "jobs/train.py", "expected /home/ray/reidray/jobs/train.py, got"),
        ("    python /home", "    cd /home/ray && python /home", "expected no &&"),
        ("backoffLimit: 0 ", "backoffLimit: 0  # hf_abcdefghijklmnopqrstuvwxyz012345", "holds a token: take it out"),
    ],
)  # fmt: skip
def test_what_was_made_wrong_is_found_and_nothing_else(old: str, new: str, sentence: str) -> None:
    text = filled_in()
    assert old in text
    said = found(text.replace(old, new))
    assert said
    assert all(sentence in one for one in said), said


def test_a_manifest_without_anything_is_told_what_it_needs() -> None:
    said = " ".join(found("apiVersion: ray.io/v1"))
    for field in (
        "kind",
        "metadata.name",
        "spec.entrypoint",
        "spec.rayClusterSpec",
        "headGroupSpec",
        "workerGroupSpecs",
    ):
        assert f"{field}: expected" in said


# --- what it is meant to be -------------------------------------------------------------------------------------------


def test_rays_autoscaler_reads_a_head_without_and_workers_with_gpus_from_zero(job: dict[str, Any]) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    read = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "x", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    )
    head, gpu = (read["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["GPU"] == 0
    assert (gpu["min_workers"], gpu["max_workers"], read["max_workers"]) == (0, 4, 4)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (40, 4)
    assert gpu["resources"]["memory"] == 160 * 2**30
    assert read["idle_timeout_minutes"] == 10


def test_ray_start_knows_every_parameter_it_is_given(job: dict[str, Any]) -> None:
    from ray.scripts.scripts import start

    known = {name for option in start.params for name in option.opts}
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_the_entrypoint_is_a_run_that_the_job_takes(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = [word.removeprefix("/home/ray/reidray/") for word in shlex.split(job["spec"]["entrypoint"])]
    assert words[:2] == ["python", "jobs/train.py"]
    settings = parsed(words[1], words[2:], monkeypatch, tmp_path).settings
    assert settings.run.max_failures == -1
    assert settings.run.start_timeout >= 600


def test_pods_have_no_more_rights_than_they_need(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    for worker in cluster["workerGroupSpecs"]:
        assert worker["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_image_is_built_from_the_pinned_ray_and_holds_what_the_run_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert {"reidray", "jobs", "configs", "pyproject.toml", "constraints.txt"} <= set(copied)
    assert all((ROOT / path).exists() for path in copied)
    assert "WORKDIR /home/ray/reidray" in lines
    assert any("pip install" in line and "-c constraints.txt" in line for line in lines)
    tags = set(re.findall(r"REGISTRY/reidray:(\S+)", FILE.read_text() + "\n".join(lines)))
    assert len(tags) == 1


def test_the_storage_is_the_one_that_the_run_mounts_and_several_machines_can_write_to_it(job: dict[str, Any]) -> None:
    claim = yaml.safe_load((ROOT / "kuberay" / "storage.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        names = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in group["template"]["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert names == [claim["metadata"]["name"]]
