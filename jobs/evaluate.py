"""`reidray evaluate`, for `ray job submit`: see reidray/commands/evaluate.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("evaluate")
