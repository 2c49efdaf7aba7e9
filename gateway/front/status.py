"""The one table from a ``GatewayError`` class to its HTTP status and gRPC status code.

No other module names a status code for an error. A class that is not listed has the codes of its
nearest listed base class, so a new error needs a row only where it differs from its parent.
"""

from typing import Final

from gateway.errors import (
    Conflict,
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InvalidRequest,
    LoadError,
    NotFound,
    RequestCancelled,
    RequestTooLarge,
    Unavailable,
    Unsupported,
)

#: Error class -> (HTTP status, name of the ``grpc.StatusCode`` member).
STATUSES: Final[dict[type[BaseException], tuple[int, str]]] = {
    BaseException: (500, "INTERNAL"),
    GatewayError: (500, "INTERNAL"),
    InvalidRequest: (400, "INVALID_ARGUMENT"),
    RequestTooLarge: (413, "RESOURCE_EXHAUSTED"),
    NotFound: (404, "NOT_FOUND"),
    Conflict: (409, "ALREADY_EXISTS"),
    Unavailable: (503, "UNAVAILABLE"),
    DeadlineExceeded: (504, "DEADLINE_EXCEEDED"),
    # nginx's code for a client that left; nobody receives it, the access log shows it.
    RequestCancelled: (499, "CANCELLED"),
    Unsupported: (501, "UNIMPLEMENTED"),
    InferenceFailed: (500, "INTERNAL"),
    # The repository holds something that cannot be served: nothing is wrong with the server.
    LoadError: (400, "FAILED_PRECONDITION"),
}


def status_of(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status and the gRPC code name of ``error``, by its nearest listed class."""
    for cls in type(error).__mro__:
        status = STATUSES.get(cls)
        if status is not None:
            return status
    raise AssertionError("BaseException is listed")  # pragma: no cover
