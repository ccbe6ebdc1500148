"""Pack a data set into WebDataset shards, or say what would be packed: see reidray/commands/prepare.py."""

import sys

from reidray.command import user_errors
from reidray.commands import prepare


def main() -> None:
    """The job."""
    with user_errors():
        prepare.main(sys.argv[1:], prog="jobs/prepare.py")


if __name__ == "__main__":
    main()
