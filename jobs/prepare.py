"""`reidray prepare`, for `ray job submit`: see reidray/commands/prepare.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("prepare")
