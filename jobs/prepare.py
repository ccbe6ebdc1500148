"""Pack a data set into WebDataset shards: images untouched, an index beside them, identities apart.

Training packs what it needs by itself; this job is for packing once on one machine and copying the shards to storage
that a cluster sees. Images that cannot be used are skipped and counted.
"""

import json
import sys
from pathlib import Path

from reidray.command import parse, user_errors
from reidray.events import message
from reidray.launch.prepare import prepared
from reidray.launch.services import num_cpus
from reidray.report.console import Console


def main() -> None:
    """The job."""
    with user_errors():
        settings = parse(sys.argv[1:], prog="jobs/prepare.py", description=__doc__).settings.resolved(Path.cwd())
        with Console(None, settings) as console:
            packed = prepared(settings, console.handle, processes=num_cpus())
            counts = json.loads((Path(packed) / "dataset.json").read_text()) if "://" not in packed else {}
            console.handle(message(f"packed in {packed}: {counts.get('splits', '')}"))


if __name__ == "__main__":
    main()
