"""Records of producers that are newer or older than the reader."""

from __future__ import annotations

from anyio_writer import APIError, ContentParseError, ProducerStoppedError
from anyio_writer.relay.records import RecordedError, rebuild_error


def test_details_of_a_newer_producer_are_left_out() -> None:
    details = '{"text": "x", "new": 1}'
    error = rebuild_error(RecordedError("ContentParseError", "said", details=details))
    assert type(error) is ContentParseError
    assert (str(error), error.text, error.path) == ("said", "x", "$")


def test_an_error_of_a_newer_producer_is_one_of_the_api() -> None:
    error = rebuild_error(RecordedError("NewError", "said", status=418, details='{"new": 1}'))
    assert type(error) is APIError
    assert (str(error), error.status_code) == ("said", 418)


def test_details_that_an_older_producer_lacks_have_their_defaults() -> None:
    error = rebuild_error(RecordedError("ProducerStoppedError", "said"))
    assert type(error) is ProducerStoppedError
    assert error.by == "producer"
