"""Errors whose cause lies outside of the run: machines, disks, other processes."""


class PassingError(ValueError):
    """A sentence for the user, as in every ValueError here; the same command may succeed at another time."""
