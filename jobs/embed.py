"""`reidray embed`, for `ray job submit`: see reidray/commands/embed.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("embed")
