"""Pack a data set into WebDataset shards: images untouched, an index beside them, identities apart.

Training packs what it needs by itself; this is for packing once on one machine and copying the shards to storage that a
cluster sees, and for a look at what would be read: --dry-run. Images that cannot be used are skipped and counted;
--list-skipped names all of them.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path

from reidray import command
from reidray.config import Settings
from reidray.events import message
from reidray.launch.account import account, left_out
from reidray.launch.data_sets import refuse_nothing_there
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.report.console import Console
from reidray.storage.cache import hide_login, open_folder
from reidray.storage.left_out_table import read_left_out

_EXAMPLES = (
    ("crops/ --dry-run", "what would be read, and how names are understood; nothing is written"),
    ("crops/ data.camera_from=folder", "pack a folder whose folders are cameras"),
    ("market/ data.packed=/mnt/shared/market-packed", "pack to storage that a cluster sees"),
)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing: print splits, persons, cameras, how names are understood, and what is left out",
    )
    parser.add_argument(
        "--list-skipped", action="store_true", help="print every file that is left out, with the reason"
    )


def main(words: Sequence[str], prog: str) -> None:
    """Packs what the settings name, or says what would be packed.

    Args:
      words: of the command line.
      prog: the command's name.

    Raises:
      ValueError: one sentence for everything a person can put right.
    """
    asked = command.parse(words, prog=prog, description=__doc__ or "", extra=_options, data=True, examples=_EXAMPLES)
    if not words:
        raise ValueError(
            f"expected a folder or a list of images: {prog} crops/ --dry-run shows what would be read, {prog} crops/ "
            "packs it (data.dataset=drawn draws pedestrians)"
        )
    refuse_nothing_there(asked.settings)
    settings = asked.settings.resolved(Path.cwd())
    if asked.options.dry_run:
        _dry_run(settings, list_skipped=asked.options.list_skipped)
        return
    with Console(None, settings) as console:
        packed = prepared(settings, console.handle, processes=num_cpus(), beside=settings.data.packed is None)
        described = json.loads(open_folder(packed, None).read("dataset.json") or b"{}")
        counts = ", ".join(f"{name} {count:,}" for name, count in described.get("splits", {}).items())
        console.handle(message(f"packed in {hide_login(packed)}: {counts}"))
    if asked.options.list_skipped:
        _print_left_out(read_left_out(packed))


def _dry_run(settings: Settings, *, list_skipped: bool) -> None:
    lines, dataset = account(settings)
    for line in [*lines, "nothing was written; damaged and too large images are found when they are packed"]:
        _print(line)
    if list_skipped and dataset is not None:
        _print_left_out(left_out(dataset))


def _print_left_out(rows: Iterable[tuple[str, str]]) -> None:
    for name, reason in rows:
        _print(f"{name}\t{reason}")


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding))
