"""`reidray check-cluster`, for `ray job submit`: see reidray/commands/check_cluster.py."""

from reidray.commands import job

if __name__ == "__main__":
    job("check_cluster")
