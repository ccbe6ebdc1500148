"""The memory bank: plain objects, called directly or as actors. All state about images and clusters lives here.

Nothing here needs PyTorch, so that a shard of its own process is there in a second and small.
"""

from reidray.bank.bank import MemoryBank
from reidray.bank.members import Done, InProcess, Lost, Member, Pending
from reidray.bank.shard import BankShard
from reidray.bank.smoothing import mask_momentum, smoothed_masks

__all__ = [
    "BankShard",
    "Done",
    "InProcess",
    "Lost",
    "Member",
    "MemoryBank",
    "Pending",
    "mask_momentum",
    "smoothed_masks",
]
