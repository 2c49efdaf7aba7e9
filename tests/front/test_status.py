"""Which codes a caller sees for each error."""

import http

import grpc
import pytest

from gateway import errors
from gateway.front.status import GRPC_CODES, STATUSES, status_of


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.MalformedRequest, (400, "INVALID_ARGUMENT")),
        (errors.InvalidTensor, (400, "INVALID_ARGUMENT")),
        (errors.RequestTooLarge, (413, "RESOURCE_EXHAUSTED")),
        (errors.ModelNotFound, (404, "NOT_FOUND")),
        (errors.NoAvailableVersion, (404, "NOT_FOUND")),
        (errors.Conflict, (409, "ALREADY_EXISTS")),
        (errors.ModelNotReady, (503, "UNAVAILABLE")),
        (errors.QueueFull, (503, "UNAVAILABLE")),
        (errors.ShuttingDown, (503, "UNAVAILABLE")),
        (errors.DeadlineExceeded, (504, "DEADLINE_EXCEEDED")),
        (errors.RequestCancelled, (499, "CANCELLED")),
        (errors.Unsupported, (501, "UNIMPLEMENTED")),
        (errors.InferenceFailed, (500, "INTERNAL")),
        (errors.LoadError, (400, "FAILED_PRECONDITION")),
        (errors.ConfigError, (400, "INVALID_ARGUMENT")),
        (ZeroDivisionError, (500, "INTERNAL")),
    ],
)
def test_each_error_has_its_codes(error: type[BaseException], expected: tuple[int, str]) -> None:
    assert status_of(error("…")) == expected


def test_a_new_subclass_takes_the_codes_of_its_nearest_listed_base() -> None:
    class TooManyColumns(errors.InvalidTensor):
        pass

    assert status_of(TooManyColumns("…")) == status_of(errors.InvalidTensor("…"))


def test_every_code_exists() -> None:
    for status, code in STATUSES.values():
        assert code in GRPC_CODES
        assert status == 499 or http.HTTPStatus(status)


def test_grpcs_codes_have_their_numbers() -> None:
    assert {code.name: code.value[0] for code in grpc.StatusCode} == GRPC_CODES
