"""Configs by name: those of the folder configs/, which a wheel carries inside of the package.

`--config scwm_folder` then means the same in a clone, in an editable install, and in an empty folder with nothing but
the wheel installed.
"""

from __future__ import annotations

import difflib
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """Where the configs that come with reidray are: inside of an installed package, beside it in a clone.

    Raises:
      ValueError: neither is there.
    """
    for folder in (_HERE / "configs", _HERE.parent / "configs"):
        if (folder / "scwm_folder.yaml").is_file():
            return folder
    raise ValueError("the configs that come with reidray are not there: install reidray again")


def config_names() -> list[str]:
    """Every config that comes with reidray, without ending and in order: "ablations/full", "scwm_folder"."""
    folder = config_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def config_file(name: str, option: str = "--config") -> Path:
    """The file that a person means by `name`, which they gave with `option`.

    A file of that path is taken first. Else the name is that of a config that comes with reidray, with or without the
    ending and the folder: "scwm_folder", "scwm_folder.yaml", "configs/scwm_folder.yaml", "ablations/full".

    Raises:
      ValueError: there is no such file and no such config; the sentence has the nearest names.
    """
    if Path(name).is_file():
        return Path(name)
    wanted = Path(name).as_posix().removeprefix("./").removeprefix("configs/")
    wanted = wanted.removesuffix(".yaml").removesuffix(".yml")
    names = config_names()
    if wanted in names:
        return config_folder() / f"{wanted}.yaml"
    near = difflib.get_close_matches(wanted.lower(), names, n=3, cutoff=0.5)
    most = [known for known in names if "/" not in known and not known.startswith("search_")]
    hint = f"did you mean {_either(near)}?" if near else f"there are {', '.join(most)}"
    raise ValueError(f"{option} {name}: there is no such file, and no config of this name comes with reidray; {hint}")


def _either(names: list[str]) -> str:
    """ "a, b or c"."""
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
