"""The memory bank: plain objects, called directly or as actors. All state about images and clusters lives here."""

from reidray.bank.bank import MemoryBank
from reidray.bank.members import Done, InProcess, Member, Pending
from reidray.bank.shard import BankShard

__all__ = ["BankShard", "Done", "InProcess", "Member", "MemoryBank", "Pending"]
