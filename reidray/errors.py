"""Errors of what lies outside of a run: machines, disks, other processes."""


class PassingError(ValueError):
    """A sentence for a person, as every ValueError here; the same command may do at another time."""
