"""Settings from text and back: a YAML file laid over the defaults, `section.name=value` words over that.

Values are read as YAML 1.2 reads them (`1e-3` is a number, `off` is a word, only `true` and `false` are truth
values). A key that is unknown, given twice or of the wrong type is refused with one sentence.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from reidray.config import Settings
from reidray.methods import METHODS


@dataclass(frozen=True)
class Setting:
    """What is known of one setting: its dotted name, default, unit, meaning, and the values it takes, in words."""

    name: str
    default: Any
    unit: str
    meaning: str
    expected: str


@dataclass(frozen=True)
class Layer:
    """Values by dotted name, and where they were written: "" for the command line, else the file's name."""

    source: str
    values: Mapping[str, Any]


def sections(tree: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str, list[Setting]]]:
    """Every section in reading order: its dotted name, what it is about, and its settings."""
    own = []
    inner: list[tuple[str, type[BaseModel]]] = []
    for key, field in tree.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner.append((f"{prefix}{key}", kind))
        else:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            unit, meaning = str(extra.get("unit", "")), field.description or ""
            own.append(Setting(f"{prefix}{key}", field.default, unit, meaning, _expected(kind, field.metadata)))
    if own:
        yield prefix.removesuffix("."), (tree.__doc__ or "").strip(), own
    for name, kind in inner:
        yield from sections(kind, f"{name}.")


@cache
def known() -> Mapping[str, Setting]:
    """Every setting by its dotted name."""
    return MappingProxyType({setting.name: setting for _, _, settings in sections() for setting in settings})


def nearest(name: str) -> str | None:
    """The dotted setting that a misspelt `name` most likely means, or None where nothing is near.

    The whole name is compared, and, at a small discount, its last word alone: the section may be wrong or left out. A
    setting that all methods share is meant rather than that of one method.
    """

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name.lower(), candidate).ratio()
        last = difflib.SequenceMatcher(None, name.lower().rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        own = candidate.partition(".")[0] in METHODS
        return max(whole, 0.95 * last) + 1e-3 * whole - 0.02 * own

    best = max(known(), key=likeness)
    return best if likeness(best) >= 0.6 else None


def from_file(path: Path) -> Layer:
    """The values that a YAML file gives; an empty file gives none.

    Raises:
      ValueError: the file is missing, unreadable, not YAML or not a mapping of sections, a key is unknown or twice.
    """
    return from_tree(read_mapping(path), str(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file holds, which must be a mapping; an empty file holds none. Errors as in `from_file`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"the settings file {path} cannot be read: {reason}") from None
    tree = _load(data, str(path))
    if not isinstance(tree, dict | NoneType):
        raise ValueError(f"{path}: expected a mapping of sections such as 'train: {{epochs: 3}}', got {_short(tree)}")
    return tree or {}


def from_tree(tree: Mapping[str, Any], source: str) -> Layer:
    """The values of a tree of sections, such as `Settings.model_dump(mode="json")`; errors as in `from_file`."""
    return Layer(source, _flat(tree, source))


def from_words(words: Sequence[str]) -> list[Layer]:
    """The values that words `section.name=value` of the command line give, in order; later ones win.

    Raises:
      ValueError: a word is not of that form, or its setting is unknown.
    """
    settings = known()
    layers = []
    for word in words:
        name, equals, text = word.partition("=")
        name = name.lstrip("-")
        if not equals or not name:
            guess = nearest(name)
            hint = f"did you mean {guess}=...?" if guess else "for example train.epochs=3"
            raise ValueError(f"expected section.name=value, got {word!r}: {hint} (see --help)")
        if name in settings and settings[name].expected.startswith("a text"):
            value = None if text in ("", "null") else text  # a folder may be called 2024, or "a: b"
        else:
            value = _load(text, name)
        layers.append(Layer("", _flat({name: value}, "")))
    return layers


def settings_from(layers: Sequence[Layer]) -> Settings:
    """The settings tree with the layers laid over the defaults, the last one on top.

    Raises:
      ValueError: a value is of the wrong type or out of range, or settings do not fit together; one sentence.
    """
    try:
        return Settings.model_validate_json(json.dumps(_nested(layers)), strict=True)
    except ValidationError as failed:
        error = failed.errors()[0]
    name = ".".join(str(part) for part in error["loc"])
    while name and name not in known():  # below a setting stand the places of a list
        name = name.rpartition(".")[0]
    if not name:
        raise ValueError(error["msg"].removeprefix("Value error, "))
    source, value = next((layer.source, layer.values[name]) for layer in reversed(layers) if name in layer.values)
    raise ValueError(_wrong(known()[name], value, source))


def check_value(name: str, value: Any, source: str) -> None:
    """Whether a setting takes a value by itself, whatever the other settings are.

    Raises:
      ValueError: unknown setting, wrong type or out of range; one sentence.
    """
    layer = from_tree({name: value}, source)
    try:
        Settings.model_validate_json(json.dumps(_nested([layer])), strict=True)
    except ValidationError as failed:
        if failed.errors()[0]["loc"]:
            raise ValueError(_wrong(known()[name], value, source)) from None


def load(path: Path) -> Settings:
    """The settings of a YAML file, laid over the defaults; errors as in `from_file` and `settings_from`."""
    return settings_from([from_file(path)])


def as_yaml(settings: Settings) -> str:
    """The whole tree as YAML, in the order of `reidray.config`; read back, it gives equal settings."""
    tree = settings.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


# --- values and sentences ---------------------------------------------------------------------------------------------


def _nested(layers: Sequence[Layer]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.values.items():
            *path, last = name.split(".")
            branch = tree
            for key in path:
                branch = branch.setdefault(key, {})
            branch[last] = value
    return tree


def _flat(tree: Mapping[Any, Any], source: str, prefix: str = "") -> dict[str, Any]:
    settings = known()
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_section = any(other.startswith(f"{name}.") for other in settings)
        if isinstance(value, dict) and name not in settings and (value or is_section):
            inner = _flat(value, source, f"{name}.")
        elif is_section:
            if value is not None and value != {}:
                example = next(other for other in settings if other.startswith(f"{name}."))
                raise ValueError(
                    f"{_at(source)}{name} is a section, not a setting: expected {example}=value or the like, "
                    f"got {_short(value)}"
                )
            inner = {}
        elif name not in settings:
            guess = nearest(name)
            hint = f"did you mean {guess}? (see --help)" if guess else "--help lists every setting"
            raise ValueError(f"{_at(source)}unknown setting {name}: {hint}")
        else:
            plain = value is None or isinstance(value, bool | int | float | str | list)
            items = value if isinstance(value, list) else [value]
            scalars = all(item is None or isinstance(item, bool | int | float | str) for item in items)
            finite = all(math.isfinite(item) for item in items if isinstance(item, float))
            if not (plain and scalars and finite):
                raise ValueError(_wrong(settings[name], value, source))
            inner = {name: value}
        for twice in flat.keys() & inner.keys():
            raise ValueError(f"{_at(source)}{twice} is given twice: keep one of them")
        flat |= inner
    return flat


def _expected(kind: Any, bounds: Sequence[Any] = ()) -> str:
    """The values that a field takes, in words, from its annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        named = next((extra.title for extra in inner[1:] if isinstance(extra, FieldInfo) and extra.title), None)
        if named is not None:
            return named
        more = [bound for extra in inner[1:] for bound in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return _expected(inner[0], more)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in inner)
    if origin in (Union, UnionType):
        return " or ".join("null" if one is NoneType else _expected(one, bounds) for one in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return f"a list, each {_expected(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}, each {_expected(inner[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    limits = {
        sign: getattr(bound, sign) for bound in bounds for sign in ("gt", "ge", "lt", "le") if hasattr(bound, sign)
    }
    if "ge" in limits and "le" in limits:
        return f"{words} from {limits['ge']:g} to {limits['le']:g}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return " ".join([words, " and ".join(f"{signs[sign]} {limit:g}" for sign, limit in limits.items())]).strip()


def _wrong(setting: Setting, value: Any, source: str) -> str:
    return f"{_at(source)}{setting.name} must be {setting.expected}, got {_short(value)}"


def _at(source: str) -> str:
    return f"{source}: " if source else ""


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else reprlib.repr(value)


# --- YAML 1.2's reading of plain words, on PyYAML ---------------------------------------------------------------------

_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  (filled below: only what YAML 1.2's core schema knows)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.value in keys and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))  # quotes the text "1e-3"
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def _load(text: bytes | str, what: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable characters"
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark and isinstance(text, bytes) else ""
        raise ValueError(f"{what} is not readable as YAML: {problem}{place}") from None
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f"{what} is not readable as YAML: a value is too long, too deep or not what its tag says"
        ) from None
