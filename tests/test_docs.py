"""What the documents say is there: links, settings, files, functions and command lines; and imports go down only."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from reidray.commands import COMMANDS
from reidray.inference import Model
from reidray.methods import METHODS
from reidray.settings_io import known
from tests.shell_lines import ROOT, job_lines, parsed, python_blocks, shell_blocks

DOCS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reidray/weights/small.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_SECTIONS = {name.split(".")[0] for name in known()}
_SETTING = re.compile(rf"({'|'.join(sorted(_SECTIONS))})(\.\w+)+")
_FILES = re.compile(r".*\.(py|ya?ml|json|jsonl|safetensors|parquet|tar|md|txt|png)")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _code(path: Path) -> list[str]:
    """What stands in backticks within a line, outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return _CODE.findall(prose)


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in _LINK.findall(path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, heading = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        if heading:
            assert heading in _headings(there), f"{path.name} links to {target}"


def _headings(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    for code in _code(path):
        match = _SETTING.match(code)
        if match is None or _FILES.fullmatch(code.split("=")[0].split(":")[0]):
            continue
        name = match[0]
        is_section = any(setting.startswith(f"{name}.") for setting in known())
        is_of_python = name in {f"model.{member}" for member in dir(Model)}  # `model = reidray.load(run)`
        assert name in known() or is_section or is_of_python, f"{path.name} speaks of {name}"


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_file_that_is_named_exists(path: Path) -> None:
    for code in _code(path):
        file, _, function = code.partition(":")
        if re.fullmatch(r"(reidray|jobs|configs|tests|docs|benchmarks)/[\w/.-]+", file):
            assert (ROOT / file).exists(), f"{path.name} speaks of {file}"
        if file.startswith("reidray/") and file.endswith(".py") and function:
            defined = {
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }
            assert set(function.split(".")) <= defined, f"{path.name} speaks of {code}"


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_command_line_is_one_that_its_program_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text("")
    for folder in ("crops", "market"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 16)).save(tmp_path / folder / "1.jpg")
    for program, words in job_lines(shell_blocks(path.read_text())):
        assert program.startswith("reidray ") or (ROOT / program).is_file(), f"{path.name} calls {program}"
        with monkeypatch.context() as patched:
            parsed(program, words, patched, tmp_path)


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_command_of_a_shell_line_exists(path: Path) -> None:
    called = re.findall(r"^\s*(?:\.venv/bin/)?reidray ([\w-]+)", shell_blocks(path.read_text()), re.MULTILINE)
    assert {name for name in called if not name.startswith("-")} <= set(COMMANDS)


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_benchmark_has_the_options_that_it_is_called_with(path: Path) -> None:
    for line in shell_blocks(path.read_text()).replace("\\\n", " ").splitlines():
        for program, words in re.findall(r"(benchmarks/\w+\.py)([^|;&]*)", line):
            assert (ROOT / program).is_file(), f"{path.name} calls {program}"
            source = (ROOT / program).read_text()
            if "from reidray.command import" in source:
                source += (ROOT / "reidray" / "command.py").read_text()
            for option in re.findall(r"(?<=\s)--([\w-]+)", words):
                literal = f'"--{option}"' in source
                of_fields = 'f"--{name}"' in source and re.search(rf"^    {option}: ", source, re.MULTILINE)
                assert literal or of_fields, f"{path.name} calls {program} with --{option}"


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_block_of_python_is_python(path: Path) -> None:
    for block in python_blocks(path.read_text()):
        ast.parse(block)


def _called(path: Path) -> set[str]:
    return {program for program, _ in job_lines(shell_blocks(path.read_text()))}


def test_every_job_and_every_command_is_on_the_page_of_commands() -> None:
    called = _called(ROOT / "docs" / "commands.md")
    commands = {word.removeprefix("reidray ").replace("-", "_") for word in called if word.startswith("reidray ")}
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert {f"jobs/{name}.py" for name in jobs - commands} <= called
    modules = {path.stem for path in (ROOT / "reidray" / "commands").glob("*.py")}
    assert {name for name in modules if not name.startswith("_")} == commands


def test_every_config_is_on_the_page_of_commands() -> None:
    named = set(_code(ROOT / "docs" / "commands.md"))
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} <= named


def test_paragraphs_of_the_readme_are_short() -> None:
    readme = (ROOT / "README.md").read_text()
    prose = re.sub(r"^```.*?^```|^\|.*?$|^!\[.*?$", "", readme, flags=re.MULTILINE | re.DOTALL)
    paragraphs = [block.strip() for block in prose.split("\n\n") if not block.strip().startswith("- ")]
    assert [block for block in paragraphs if block.count("\n") >= 4] == []


def test_tables_of_benchmarks_are_those_of_the_results_and_the_readme_shows_ten_rows_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    program = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
    documents = [document for document in found if "rows" in document]
    shown = program["readme_table"](documents)
    assert shown.count("\n") - 1 <= 10
    assert f"<!-- benchmarks -->\n\n{shown}\n\n<!-- end of benchmarks -->" in (ROOT / "README.md").read_text()
    performance = (ROOT / "docs" / "performance.md").read_text()
    plan = program["plan"]
    planned = plan.table(plan.planned(plan.Size(), plan.measured()))
    assert f"<!-- plan -->\n\n{planned}\n\n<!-- end of plan -->" in (ROOT / "docs" / "performance.md").read_text()
    large = program["large_table"](found)
    assert f"<!-- large -->\n\n{large}\n\n<!-- end of large -->" in (ROOT / "docs" / "performance.md").read_text()
    for name, table in (("goals", program["goals_table"]), ("benchmarks", program["full_tables"])):
        assert f"<!-- {name} -->\n\n{table(documents)}\n\n<!-- end of {name} -->" in performance


def _texts(path: Path) -> set[str]:
    """Every text in a file of code; `…` stands for what is put in while it runs."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else ""
        if isinstance(node, ast.JoinedStr):
            return "".join(value.value if isinstance(value, ast.Constant) else "…" for value in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return (text(node.left) or "…") + (text(node.right) or "…")
        return ""

    return {text(node) for node in ast.walk(ast.parse(path.read_text()))}


def test_every_message_that_is_explained_is_one_that_the_program_has() -> None:
    texts = set().union(*(_texts(path) for path in (ROOT / "reidray").rglob("*.py")))
    messages = re.findall(r"^> `(.+)`$", (ROOT / "docs" / "messages.md").read_text(), re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
        assert any(pattern.search(text) for text in texts), f"messages.md explains: {message}"


def test_every_message_has_a_cause_and_a_cure() -> None:
    for section in re.split(r"^### ", (ROOT / "docs" / "messages.md").read_text(), flags=re.MULTILINE)[1:]:
        section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        for needed in ("\n> `", "\n- **Cause.** ", "\n- **Cure.** "):
            assert section.count(needed) == 1, section.splitlines()[0]


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for line in (
        "-m venv .venv",
        ".venv/bin/pip install",
        "-c constraints.txt -e '.[dev]'",
        ".venv/bin/python -m pytest",
    ):
        assert line in readme
        assert line in script


# --- imports ----------------------------------------------------------------------------------------------------------

MATHEMATICS = {"cuda", "data", "features", "neighbours", "labelling", "parsing", "memory", "losses", "evaluation"}
COMPOSITION = {"methods", "bank", "training"}
WORLD = {
    *("storage", "report", "actors", "launch", "tuning", "deployment"),
    *("inference", "gallery", "export", "serving", "commands"),
}
BESIDE = {
    "arrays",
    "counted",
    "compiled",
    "dispatch",
    "spans",
    "threads",
    "disk",
    "errors",
    "events",
    "version",
    "config",
    "shared_settings",
    "section",
    "settings_io",
    "command",
    "help_text",
    "user_errors",
    "weights",
    "packaged",
    "api",
    "guess",
}


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, by its full name."""
    package = path.relative_to(ROOT).with_suffix("").parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _rooms(paths: list[Path]) -> dict[Path, set[str]]:
    """For each file the rooms of reidray, and the packages outside of it, that it imports from."""
    tops: dict[Path, set[str]] = {}
    for path in paths:
        names = [name.split(".") for name in _imports(path)]
        tops[path] = {".".join(parts[:2]) if parts[0] == "reidray" else parts[0] for parts in names}
    return tops


def _files(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / "reidray" / room).rglob("*.py"))


def _assert_free_of(paths: list[Path], forbidden: set[str]) -> None:
    wrong = {_name(path): sorted(rooms & forbidden) for path, rooms in _rooms(paths).items() if rooms & forbidden}
    assert wrong == {}


def _in_reidray(*rooms: str) -> set[str]:
    return {f"reidray.{room}" for room in rooms}


def test_every_room_has_its_place() -> None:
    found = {path.name if path.is_dir() else path.stem for path in (ROOT / "reidray").iterdir()}
    rooms = {name for name in found if not name.startswith(("_", "py.")) and name != "py"}
    assert rooms <= MATHEMATICS | COMPOSITION | WORLD | BESIDE


def test_mathematics_imports_neither_ray_nor_settings_nor_the_rooms_above_it() -> None:
    above = _in_reidray(*COMPOSITION, *WORLD, "config", "shared_settings", "settings_io", "command")
    _assert_free_of(
        _files(*sorted(MATHEMATICS)), above | {"ray", "pydantic", "yaml", "webdataset", "fsspec", "safetensors"}
    )


def test_composition_imports_neither_ray_nor_the_world_but_storage() -> None:
    _assert_free_of(
        _files(*sorted(COMPOSITION)),
        _in_reidray(*(WORLD - {"storage"}), "command", "settings_io") | {"ray", "rich"},
    )


def test_methods_know_neither_training_nor_the_bank_nor_a_disk() -> None:
    _assert_free_of(_files("methods"), _in_reidray("training", "bank", "storage"))


def test_the_bank_knows_neither_methods_nor_training_nor_storage() -> None:
    _assert_free_of(_files("bank"), _in_reidray("methods", "training", "storage"))


def test_of_mathematics_only_data_has_to_do_with_files() -> None:
    """And the module that finds the CUDA sources."""
    rooms = [path for path in _files(*sorted(MATHEMATICS - {"data"})) if _name(path) != "reidray/cuda/device.py"]
    _assert_free_of(rooms, {"pathlib", "io", "shutil", "tempfile"})


def test_actors_take_from_launch_what_makes_a_workers_services_and_the_evaluator() -> None:
    taken = {name for path in _files("actors") for name in _imports(path) if name.startswith("reidray.launch")}
    assert {".".join(name.split(".")[:3]) for name in taken} == {"reidray.launch.services", "reidray.launch.evaluator"}


def test_storage_and_reports_know_neither_the_engine_nor_ray() -> None:
    _assert_free_of(_files("storage"), _in_reidray(*COMPOSITION, *(WORLD - {"storage"})) | {"ray"})
    _assert_free_of(_files("report"), _in_reidray(*COMPOSITION, *(WORLD - {"storage", "report"})) | {"ray"})


ENGINE = ("training", "bank", "launch", "actors", "report", "storage", "tuning", "deployment")
OF_OTHERS = {
    # layouts of checkpoints that other repositories publish, called by those repositories' names
    "reidray/storage/weights.py": {"cluster_contrast", "pplr"},
}


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _names(line: str, method: str) -> bool:
    """Whether a line has a method's name, as an identifier, in prose, or within an identifier."""
    words, name = [word.lower() for word in _WORD.findall(line)], method.split("_")
    return any(words[at : at + len(name)] == name for at in range(len(words)))


@pytest.mark.parametrize("method", METHODS)
def test_no_room_of_the_engine_knows_a_methods_name(method: str) -> None:
    knowing = {
        f"{_name(path)}:{number}"
        for path in _files(*ENGINE)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if _names(line, method) and method not in OF_OTHERS.get(_name(path), set())
    }
    assert knowing == set()


def test_names_of_methods_are_found_however_they_are_written() -> None:
    for line in ("method.scwm", "SCWM eq. 7", "SCWMHeads", "ScwmSettings", "_scwm_terms", "scwm2"):
        assert _names(line, "scwm")
    for line in ("cluster_contrast", "ClusterContrast", "Cluster Contrast's", "of_cluster_contrast"):
        assert _names(line, "cluster_contrast")
    for line in ("contrast of clusters", "cluster", "isaac", "a scwmx"):
        assert not any(_names(line, method) for method in ("cluster_contrast", "aac", "scwm"))


def test_a_search_uses_launches_and_actors_and_neither_knows_of_it() -> None:
    _assert_free_of(_files("launch", "actors"), _in_reidray("tuning"))


def test_deployment_knows_no_other_room() -> None:
    rooms = MATHEMATICS | COMPOSITION | WORLD - {"deployment"} | BESIDE
    _assert_free_of(_files("deployment"), _in_reidray(*rooms) | {"ray"})


def test_only_the_actors_know_ray() -> None:
    outside = sorted(path for path in (ROOT / "reidray").rglob("*.py") if "actors" not in path.parts)
    _assert_free_of(outside, {"ray"})


def test_jobs_know_neither_ray_nor_mathematics_but_data() -> None:
    jobs = sorted((ROOT / "jobs").glob("*.py"))
    _assert_free_of(jobs, _in_reidray(*(MATHEMATICS - {"data"})) | {"ray", "reidray.actors"})


MODULES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "prometheus-client": "prometheus_client",
    "scikit-learn": "sklearn",
    "cuml-cu13": "cuml",
    "cupy-cuda13x": "cupy",
    "mlflow-skinny": "mlflow",
    "umap-learn": "umap",
}
NOT_IMPORTED = {
    "tensorboard",  # by torch.utils.tensorboard
    "sqlalchemy",  # both by MLflow's local database
    "alembic",
    "onnxscript",  # by PyTorch's exporter
    "python-multipart",  # by Starlette
}


def test_every_package_that_is_imported_is_declared_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (packages for name, packages in project["optional-dependencies"].items() if name not in ("dev", "docs"))
    declared = {re.match(r"[\w-]+", line)[0] for line in chain(project["dependencies"], *extras)}  # type: ignore[index]
    imported = {name.split(".")[0] for path in (ROOT / "reidray").rglob("*.py") for name in _imports(path)}
    packages = imported - set(sys.stdlib_module_names) - {"reidray"}
    assert packages == {MODULES.get(name, name) for name in declared - NOT_IMPORTED}


def test_only_ground_truth_readers_open_identities() -> None:
    readers = {
        _name(path)
        for path in (ROOT / "reidray").rglob("*.py")
        if any(name.endswith(".read_truth") for name in _imports(path))
    }
    assert readers == {
        "reidray/launch/paper_figures.py",
        "reidray/launch/run_page.py",
        "reidray/storage/__init__.py",
        "reidray/training/context.py",
    }


def test_only_the_context_of_a_worker_opens_attributes() -> None:
    """Annotations are for labels that say they are weakly supervised; whoever begins to read them is listed here."""
    readers = {
        _name(path)
        for path in (ROOT / "reidray").rglob("*.py")
        if any(name.endswith(".read_attributes") for name in _imports(path))
    }
    assert readers == {"reidray/storage/__init__.py", "reidray/training/context.py"}
