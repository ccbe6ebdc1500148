"""`reidray train`, for `ray job submit`: see reidray/commands/train.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("train")
