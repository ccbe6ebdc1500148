"""What docs/security.md promises: nothing that is read is run, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reidray.settings_io import from_file, settings_from
from tests.shell_lines import ROOT

SOURCES = sorted([*(ROOT / "reidray").rglob("*.py"), *(ROOT / "jobs").glob("*.py")])

# What runs what it is given. `torch.load` and `yaml.load` have harmless forms, which are looked at by hand below.
RUNS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"),
    *("dill.loads", "cloudpickle.loads", "joblib.load", "numpy.load", "np.load", "pandas.read_pickle"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.hub.load"),
}


def _calls(path: Path) -> list[tuple[str, ast.Call]]:
    return [
        (ast.unparse(node.func), node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]


def test_nothing_that_is_read_is_run() -> None:
    found = {f"{path.name}: {name}" for path in SOURCES for name, _ in _calls(path) if name in RUNS}
    # An actor opens the arguments that its driver packed: they come as Ray's own messages, which are pickles as well.
    assert found == {"remote.py: cloudpickle.loads"}


def test_no_command_goes_through_a_shell() -> None:
    for path in SOURCES:
        for name, call in _calls(path):
            shell = [word for word in call.keywords if word.arg == "shell"]
            assert not shell, f"{path.name}: {name}"


def test_tensors_are_loaded_without_code_and_yaml_without_objects() -> None:
    loads = [(path.name, name, call) for path in SOURCES for name, call in _calls(path) if name.endswith(".load")]
    seen = set()
    for file, name, call in loads:
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "torch.load":
            assert words["weights_only"] == "True", file
            seen.add(name)
        if name == "yaml.load":
            assert words["Loader"] == "_Loader", file
            seen.add(name)
    assert seen == {"torch.load", "yaml.load"}, "this test looks at nothing any more"
    settings_io = (ROOT / "reidray" / "settings_io.py").read_text()
    assert "class _Loader(yaml.SafeLoader):" in settings_io


def test_an_object_in_a_config_is_refused_unmade(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"run: {{dir: !!python/object/apply:os.system ['touch {tmp_path}/ran']}}")
    with pytest.raises(ValueError, match="is not readable as YAML"):
        settings_from([from_file(tmp_path / "a.yaml")])
    assert not (tmp_path / "ran").exists()


def test_a_config_that_unfolds_without_end_is_refused_in_a_short_sentence(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    for last in ("train: {epochs: *a29}", "run: {dir: *a29}"):
        (tmp_path / "a.yaml").write_text("\n".join([*lines, last]))
        with pytest.raises(ValueError, match=r"unknown setting|must be") as refused:
            settings_from([from_file(tmp_path / "a.yaml")])
        assert len(str(refused.value)) < 1000


def test_webdataset_takes_no_commands_once_packing_has_imported_it(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from PIL import Image
from reidray.data import folder
from reidray.storage.pack import pack
root = Path(sys.argv[1])
(root / "in").mkdir()
Image.new("RGB", (8, 16)).save(root / "in" / "a.png")
pack(folder.read(root / "in"), root / "out", images_per_shard=4, max_pixels=10**6, max_bytes=10**6)
import webdataset
try:
    list(webdataset.WebDataset(f"pipe:touch {root}/ran", shardshuffle=False))
except ValueError:
    pass
else:
    raise AssertionError("the command was taken")
assert not (root / "ran").exists()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], check=True, cwd=ROOT)


def test_every_test_that_the_threat_list_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    for file, test in named:
        names = {
            node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
        }
        assert test in names, f"{file}::{test}"


def test_html_is_written_by_templates_that_escape_and_nowhere_else() -> None:
    """What stands unescaped in a page is its own style and script, and the policy of the page knows their hashes."""
    html = re.compile(r"</?(html|body|div|img|script)\b", re.IGNORECASE)
    assert [path.name for path in SOURCES if html.search(path.read_text())] == []
    page = ROOT / "reidray" / "report" / "page"
    marked = {
        (path.name, ast.unparse(call)) for path in SOURCES for name, call in _calls(path) if name.endswith("Markup")
    }
    assert marked == {("write.py", "Markup(style)"), ("write.py", "Markup(script)")}
    assert "autoescape=True" in (page / "write.py").read_text()
    templates = sorted((page / "templates").glob("*.j2"))
    assert len(templates) == 3
    for template in templates:
        text = template.read_text()
        assert not re.search(r"\|\s*safe|autoescape|\son\w+=|\sstyle=|https?://", text), template.name
    script = (page / "templates" / "page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|https?://|fetch\(", script)
