"""The memory bank: plain objects, called directly or as actors. All state about images and clusters lives here.

Nothing here needs PyTorch, so that a shard of its own process is there in a second and small.
"""

from reidray.bank.bank import MemoryBank, Snapshot
from reidray.bank.members import Done, InProcess, Member, Pending
from reidray.bank.shard import BankShard, LostRowsError, read_snapshot
from reidray.bank.smoothing import smoothed_masks

__all__ = [
    "BankShard",
    "Done",
    "InProcess",
    "LostRowsError",
    "Member",
    "MemoryBank",
    "Pending",
    "Snapshot",
    "read_snapshot",
    "smoothed_masks",
]
