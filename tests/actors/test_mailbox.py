"""Events stay in the mailbox until the driver has handled them, whoever dies meanwhile."""

import pytest

from reidray.actors.mailbox import Mailbox
from reidray.actors.train_group import _Drained
from reidray.actors.worker import _await_filed
from reidray.bank import InProcess


def test_what_was_taken_and_not_handled_comes_again() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put({"number": number})
    name, events = mailbox.take("", 0)
    assert [event["number"] for event in events] == [0, 1, 2]
    mailbox.put({"number": 3})
    assert [event["number"] for event in mailbox.take(name, 2)[1]] == [2, 3]
    assert [event["number"] for event in mailbox.take(name, 2)[1]] == [2, 3]  # the call was made again
    assert mailbox.handled() == (name, 2)
    assert mailbox.sent() == (name, 4)
    assert mailbox.take(name, 4)[1] == []
    assert mailbox.handled() == mailbox.sent() == (name, 4)


def test_a_count_of_another_mailbox_forgets_nothing() -> None:
    before, now = Mailbox(), Mailbox()
    name, _ = before.take("", 0)
    now.put({"number": 0})
    other, events = now.take(name, 7)
    assert other != name
    assert [event["number"] for event in events] == [0]
    assert now.handled() == (other, 0)


def test_the_first_failure_is_the_one_that_is_told() -> None:
    mailbox = Mailbox()
    assert mailbox.failure() is None
    mailbox.fail("one", "here")
    mailbox.fail("two", "there")
    assert mailbox.failure() == ("one", "here", False)


def test_what_the_driver_could_not_file_is_not_handled_and_ends_the_run() -> None:
    box = Mailbox()
    mailbox, filed = InProcess(box), []
    for number in range(3):
        box.put({"number": number})

    def file(event: dict[str, int]) -> None:
        if event["number"] == 1:
            raise OSError(28, "No space left on device")
        filed.append(event["number"])

    with pytest.raises(OSError, match="No space left"), _Drained(mailbox, file):  # type: ignore[arg-type]
        pass
    assert filed == [0]
    sentence, _, passing = box.failure() or ("", "", False)
    assert passing
    assert "No space left" in sentence
    name, _ = box.sent()
    with pytest.raises(RuntimeError, match="cannot file"):
        _await_filed(mailbox, name)  # type: ignore[arg-type]


def test_a_checkpoint_is_not_written_once_the_mailbox_lost_figures() -> None:
    before, now = Mailbox(), Mailbox()
    name, _ = before.sent()
    with pytest.raises(RuntimeError, match="figures were lost"):
        _await_filed(InProcess(now), name)  # type: ignore[arg-type]
    _await_filed(InProcess(before), name)  # type: ignore[arg-type]
