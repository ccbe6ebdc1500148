"""The recorder of spans: what it sums, what it keeps, and that it is silent when it is off."""

import threading
import time

import pytest

from reidray.spans import OFF, Recording, Spans, Total, spanned, step_figures


def test_a_span_lies_within_the_wall_clocks_time_around_it():
    spans = Spans("one")
    spans.trace(3)
    before = time.time_ns()
    with spans("a"):
        time.sleep(0.002)
    after = time.time_ns()
    (span,) = spans.traced().spans
    assert (span.name, span.epoch, span.step) == ("a", 3, None)
    assert before - 1_000_000 <= span.start <= span.start + span.duration <= after + 1_000_000
    assert span.duration >= 2_000_000


def test_spans_within_a_span_lie_within_it_and_end_before_it():
    spans = Spans()
    spans.trace(0)
    with spans("outer"), spans("inner"):
        pass
    inner, outer = spans.traced().spans
    assert (inner.name, outer.name) == ("inner", "outer")
    assert outer.start <= inner.start
    assert inner.start + inner.duration <= outer.start + outer.duration


def test_a_span_is_recorded_where_its_block_raises():
    spans = Spans()
    spans.trace(0)
    with pytest.raises(KeyError), spans("fails"):
        raise KeyError
    assert [span.name for span in spans.traced().spans] == ["fails"]


def test_what_is_not_between_trace_and_traced_is_not_kept():
    spans = Spans("p")
    with spans("before"):
        pass
    spans.trace(0)
    with spans("dropped"):
        pass
    spans.trace(1)  # the epoch is done again
    with spans("kept"):
        pass
    assert [(span.name, span.epoch) for span in spans.traced().spans] == [("kept", 1)]
    with spans("after"):
        pass
    assert spans.traced() == Recording("p", [], {threading.get_ident(): threading.current_thread().name})


def test_steps_have_their_wait_and_their_work_and_the_numbers_of_the_steps():
    spans = Spans()
    spans.trace(0)
    for item in spans.each("xy"):
        with spans(f"work on {item}"):
            pass
    assert spans.step is None
    assert [(span.name, span.step) for span in spans.traced().spans] == [
        ("data", 0),
        ("work on x", 0),
        ("step", 0),
        ("data", 1),
        ("work on y", 1),
        ("step", 1),
    ]


def test_steps_of_an_epoch_that_goes_on_count_from_where_it_stood():
    spans = Spans()
    seen = [(item, spans.step) for item in spans.each("xy", 3)]
    assert seen == [("x", 3), ("y", 4)]
    assert spans.step_totals()["step"].count == 2


def test_the_wait_for_an_item_is_data_and_not_work():
    spans = Spans()

    def slow():
        time.sleep(0.02)
        yield 1

    for _ in spans.each(slow()):
        pass
    totals = spans.step_totals()
    assert totals["data"].nanoseconds >= 20_000_000
    assert totals["step"].nanoseconds >= totals["data"].nanoseconds


def test_an_error_in_a_step_lets_go_of_the_items_and_of_the_step():
    spans, closed = Spans(), []

    def items():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    def run():
        for _ in spans.each(items()):
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert closed == [True]
    assert spans.step is None


def test_only_spans_of_steps_are_summed_and_only_once():
    spans = Spans()
    with spans("forward"):
        pass
    with spans("forward", 4), spans("other", 4):
        pass
    totals = spans.step_totals()
    assert {name: total.count for name, total in totals.items()} == {"forward": 1, "other": 1}
    assert spans.step_totals() == {}


def test_figures_are_means_over_steps_of_the_sums_within_a_step():
    totals = {"step": Total(4, 80_000_000), "forward": Total(8, 24_000_000), "prepare": Total(4, 1)}
    assert step_figures(totals) == {"step_ms": 20.0, "step_ms_forward": 6.0}
    assert step_figures({}) == {}


def test_threads_are_told_apart_and_none_of_their_spans_is_lost():
    spans = Spans()
    spans.trace(0)

    def many():
        for _ in range(500):
            with spans("x", 0):
                spans.count("things", 2)

    threads = [threading.Thread(target=many, name=f"t{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording = spans.traced()
    assert len(recording.spans) == 2000
    assert set(recording.threads.values()) <= {"t0", "t1", "t2", "t3"}
    assert spans.step_totals()["x"].count == 2000
    assert spans.counts() == {"things": 4000}


def test_a_tap_gets_every_span_and_loses_the_oldest_where_it_is_full():
    spans = Spans()
    tap = spans.tap(2)
    for name in "abc":
        with spans(name):
            pass
    assert [span.name for span in tap] == ["b", "c"]


def test_a_recorder_that_is_off_does_nothing_but_run_the_block():
    OFF.trace(0)
    ran = []
    with OFF("a"):
        ran.append("a")
    OFF.count("b", 1)
    ran += list(OFF.each([1, 2]))
    assert ran == ["a", 1, 2]
    assert OFF.traced().spans == []
    assert OFF.counts() == {}
    assert OFF.step_totals() == {}


def test_calls_of_a_spanned_method_are_spans_and_the_method_stays_what_it_was():
    class Thing:
        def __init__(self):
            self.spans = Spans()

        @spanned
        def double(self, number: int, *, more: int = 0) -> int:
            """Twice."""
            return 2 * number + more

    thing = Thing()
    thing.spans.trace(0)
    assert thing.double(3, more=1) == 7
    assert Thing.double.__doc__ == "Twice."
    assert [span.name for span in thing.spans.traced().spans] == ["double"]
