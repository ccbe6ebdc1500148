"""A wheel and an sdist that hold everything, install without this repository, and find their configs by name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from reidray.packaged import config_file, config_names
from reidray.settings_io import from_file, settings_from
from reidray.version import __version__
from tests.shell_lines import ROOT

_BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "reidray", "configs", "jobs")
_COMPILED = shutil.ignore_patterns("__pycache__", "*.nb[ci]")


def _run(*words: str, cwd: Path) -> str:
    """What a program says, outside of this repository and without its folder on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _copy(place: Path) -> Path:
    """What a package is built from, elsewhere: building leaves folders behind."""
    place.mkdir()
    for name in _BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=_COMPILED)
        else:
            shutil.copy(ROOT / name, place / name)
    return place


def _pip(python: Path, *words: str, cwd: Path) -> None:
    """pip of this environment for another one, without a network."""
    shared = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command, *rest = words
    _run(sys.executable, "-m", "pip", "--python", str(python), command, *shared, *rest, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _copy(tmp_path_factory.mktemp("packaging") / "source")


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    _pip(Path(sys.executable), "wheel", "--no-cache-dir", "--wheel-dir", str(source.parent / "built"), ".", cwd=source)
    (built,) = (source.parent / "built").glob("*.whl")
    return built


def _environment(place: Path) -> Path:
    """An environment without reidray, in which the packages that reidray depends on are found. Returns its python."""
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    (installed,) = place.glob("lib/python*/site-packages")
    # A folder that a .pth file names is searched, but .pth files in it, an editable reidray's among them, are not read.
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_a_wheel_holds_every_file_of_the_package_and_every_config(source: Path, wheel: Path) -> None:
    wanted = {path.relative_to(source).as_posix() for path in (source / "reidray").rglob("*") if path.is_file()}
    wanted |= {f"reidray/{path.relative_to(source).as_posix()}" for path in (source / "configs").rglob("*.yaml")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert {"reidray/py.typed", "reidray/weights/small.safetensors", "reidray/configs/scwm_folder.yaml"} <= held


def test_an_installed_wheel_finds_configs_by_name_and_has_the_command(wheel: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "environment")
    _pip(python, "install", str(wheel), cwd=tmp_path)
    (empty := tmp_path / "empty").mkdir()
    program = (
        "from reidray import __version__, packaged, settings_io; "
        "print(packaged.config_file('scwm_folder')); "
        "layer = settings_io.from_file(packaged.config_file('ablations/full')); "
        "print(settings_io.settings_from([layer]).method.name, len(packaged.config_names()), __version__)"
    )
    file, method, count, version = _run(str(python), "-W", "error", "-c", program, cwd=empty).split()
    assert Path(file).is_relative_to(tmp_path / "environment")
    assert (method, int(count), version) == ("scwm", len(config_names()), __version__)
    command = str(python.parent / "reidray")
    assert "train" in _run(command, "--help", cwd=empty)
    printed = _run(command, "train", "--print-config", "--config", "scwm_folder", "data.root=crops", cwd=empty)
    assert yaml.safe_load(printed)["data"]["dataset"] == "folder"
    assert list(empty.iterdir()) == []


def test_an_editable_install_reads_the_configs_of_the_clone(tmp_path: Path) -> None:
    clone = _copy(tmp_path / "clone")
    python = _environment(tmp_path / "environment")
    _pip(python, "install", "--editable", ".", cwd=clone)
    program = "from reidray import packaged; print(packaged.config_file('scwm_folder.yaml'))"
    assert Path(_run(str(python), "-c", program, cwd=tmp_path).strip()) == clone / "configs" / "scwm_folder.yaml"
    assert not (clone / "reidray" / "configs").exists()
    assert (python.parent / "reidray").is_file()


def test_an_sdist_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    program = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    _run(sys.executable, "-c", program, str(tmp_path), cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    _pip(
        Path(sys.executable),
        "wheel",
        "--no-cache-dir",
        "--wheel-dir",
        str(tmp_path / "again"),
        str(sdist),
        cwd=tmp_path,
    )
    (again,) = (tmp_path / "again").glob("*.whl")
    ours, theirs = zipfile.ZipFile(wheel), zipfile.ZipFile(again)
    assert sorted(ours.namelist()) == sorted(theirs.namelist())
    for name in ours.namelist():
        if ".dist-info/" not in name:
            assert ours.read(name) == theirs.read(name), name


# --- configs by name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["scwm_folder", "scwm_folder.yaml", "configs/scwm_folder.yaml", "./configs/scwm_folder"]
)
def test_a_config_is_found_by_any_of_its_names_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(name) == ROOT / "configs" / "scwm_folder.yaml"


def test_a_file_of_ones_own_comes_before_a_config_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scwm_folder.yaml").write_text("train: {epochs: 3}\n")
    assert settings_from([from_file(config_file("scwm_folder.yaml"))]).train.epochs == 3


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("scwm_foldr", "scwm_folder"), ("SCWM_Folder.yaml", "scwm_folder"), ("ablations/table1_pplrs", "table1_pplr")],
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^--config {re.escape(wrong)}: there is no such file.*did you mean .*{near}"
    ):
        config_file(wrong)


def test_a_name_unlike_any_other_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"there are aac_market1501, .*scwm_folder"):
        config_file("0")


def test_a_name_does_not_lead_out_of_the_folder() -> None:
    with pytest.raises(ValueError, match="no config of this name"):
        config_file("../pyproject")


# --- what stands beside the package -----------------------------------------------------------------------------------


def test_every_group_of_packages_for_development_is_pinned() -> None:
    """What `pip install -c constraints.txt -e '.[dev]'` names itself has a version; what those pull in, by hand."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    lines, groups = list(project["dependencies"]), ["dev"]
    while groups:
        for line in project["optional-dependencies"][groups.pop()]:
            own = re.match(r"reidray\[(.+)\]", line)
            groups += own[1].split(",") if own else []
            lines += [] if own else [line]
    assert {re.match(r"[\w-]+", line)[0].lower() for line in lines} <= pinned  # type: ignore[index]


def test_the_citation_is_of_this_version_and_has_what_the_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
