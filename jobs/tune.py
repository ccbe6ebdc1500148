"""`reidray tune`, for `ray job submit`: see reidray/commands/tune.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("tune")
