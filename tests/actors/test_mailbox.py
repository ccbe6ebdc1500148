"""Events stay in the mailbox until the driver has handled them, whoever dies meanwhile."""

from reidray.actors.mailbox import Mailbox


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
    assert mailbox.failure() == ("one", "here")
