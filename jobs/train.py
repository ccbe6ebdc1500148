"""Train a person re-identification model without labels.

With no arguments: draws pedestrians, packs them, trains SCWM on two CPU workers, evaluates before and after, and
leaves a run folder. The same job trains on real data (--config configs/scwm_market1501.yaml data.root=DIR), on GPUs,
and on a cluster (ray job submit --working-dir . -- python jobs/train.py ...).
"""

import sys

from reidray.command import parse, user_errors
from reidray.launch.launch import launch


def main() -> None:
    """The job."""
    with user_errors():
        command = parse(sys.argv[1:], prog="jobs/train.py", description=__doc__, resume=True)
        launch(command.settings, resume=command.options.resume)


if __name__ == "__main__":
    main()
