"""Kernels run from an installation that is read only, with a home and without, in one process and in several."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shell_lines import ROOT

# A superuser may write anywhere; without these two rights only where the mode says so.
_AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
_NOWHERE = "/proc/nowhere"  # a home that nobody can make

_CLUSTER = """
import numpy as np
from scipy import sparse
from reidray import compiled
from reidray.labelling import dbscan
distances = sparse.csr_array(np.array([[0, .1, 0], [.1, 0, .1], [0, .1, 0]], np.float32))
print(compiled.__file__, *dbscan(distances, eps=.5, min_samples=2), compiled.caution(), sep="|")
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that nobody may write to."""
    if _AS_A_USER and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: a superuser cannot be kept from writing")
    place = tmp_path_factory.mktemp("read-only") / "site"
    shutil.copytree(ROOT / "reidray", place / "reidray", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [place, *place.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    yield place
    for path in [place, *place.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def start(installation: Path, home: str, **environment: str) -> subprocess.Popen[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "PYTHONPATH", "XDG_CACHE_HOME")
    }
    return subprocess.Popen(
        [*_AS_A_USER, sys.executable, "-B", "-W", "ignore", "-c", _CLUSTER],
        env={**kept, "HOME": home, "PYTHONPATH": str(installation), **environment},
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def said(installation: Path, home: str, **environment: str) -> str:
    """What is said of the place of kernels by a process that clusters three images."""
    with start(installation, home, **environment) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    file, *labels, caution = out.strip().split("|")
    assert file.startswith(str(installation))
    assert labels == ["0", "0", "0"]
    return caution


def test_without_a_place_to_write_kernels_run_and_one_sentence_says_that_they_are_not_kept(installation: Path) -> None:
    sentence = said(installation, _NOWHERE)
    assert sentence.startswith(f"compiled kernels cannot be kept (neither {_NOWHERE}/.cache/reidray/kernels nor ")
    assert f" nor {installation}/reidray can be written" in sentence
    assert sentence.endswith("set NUMBA_CACHE_DIR to a folder that you may write")


def test_with_a_home_kernels_are_kept_there_and_several_processes_may_write_them_at_once(
    installation: Path, tmp_path: Path
) -> None:
    several = [start(installation, str(tmp_path)) for _ in range(2)]
    for process in several:
        with process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        assert out.strip().endswith("|0|0|0|None")
    (place,) = (tmp_path / ".cache" / "reidray" / "kernels").iterdir()
    kept = sorted(place.rglob("*.nbc"))
    assert kept
    assert place.stat().st_mode & 0o777 == 0o700
    times = [path.stat().st_mtime_ns for path in kept]
    elsewhere = tmp_path / "working directory of a job"
    shutil.copytree(installation / "reidray", elsewhere / "reidray")
    for copy in (installation, elsewhere):
        assert said(copy, str(tmp_path)) == "None"
        assert [path.stat().st_mtime_ns for path in sorted(place.rglob("*.nbc"))] == times, "compiled a second time"


def test_a_kernel_is_compiled_anew_where_another_file_has_changed_that_is_compiled_into_it(
    installation: Path, tmp_path: Path
) -> None:
    """numba asks a kernel's own file alone."""
    shutil.copytree(installation / "reidray", tmp_path / "reidray")
    other = tmp_path / "reidray" / "neighbours" / "sparse_rows.py"
    for path in (other.parent, other):
        path.chmod(path.stat().st_mode | 0o200)
    assert said(tmp_path, str(tmp_path)) == "None"
    other.write_text(other.read_text() + "\n# another version\n")
    assert said(tmp_path, str(tmp_path)) == "None"
    first, second = (tmp_path / ".cache" / "reidray" / "kernels").iterdir()
    names = [sorted(path.name for path in place.rglob("*.nbc")) for place in (first, second)]
    assert names[0] == names[1] != []


def test_folders_that_nothing_has_used_for_a_month_are_removed(installation: Path, tmp_path: Path) -> None:
    kernels = tmp_path / ".cache" / "reidray" / "kernels"
    for name, days in (("0.0.9-numba-0.1-old-0", 31), ("0.0.9-numba-0.1-new-0", 29), ("something else", 99)):
        (kernels / name).mkdir(parents=True)
        os.utime(kernels / name, (time.time() - days * 86400,) * 2)
    assert said(installation, str(tmp_path)) == "None"
    names = {place.name for place in kernels.iterdir()}
    assert {"0.0.9-numba-0.1-new-0", "something else"} < names
    assert "0.0.9-numba-0.1-old-0" not in names


def test_without_a_home_kernels_are_kept_beside_the_code(installation: Path, tmp_path: Path) -> None:
    shutil.copytree(installation / "reidray", tmp_path / "reidray")
    (tmp_path / "reidray").chmod(0o755)
    assert said(tmp_path, _NOWHERE) == "None"
    assert list((tmp_path / "reidray" / "__pycache__" / "kernels").rglob("*.nbc"))


@pytest.mark.slow
def test_numba_cache_dir_is_used_where_it_is_set(installation: Path, tmp_path: Path) -> None:
    assert said(installation, _NOWHERE, NUMBA_CACHE_DIR=str(tmp_path / "kernels")) == "None"
    assert list((tmp_path / "kernels").rglob("*.nbc"))
    sentence = said(installation, str(tmp_path), NUMBA_CACHE_DIR=f"{_NOWHERE}/kernels")
    assert sentence.startswith(
        f"compiled kernels cannot be kept (NUMBA_CACHE_DIR={_NOWHERE}/kernels cannot be written)"
    )
