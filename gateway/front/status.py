"""The one table from a ``GatewayError`` class to its HTTP status and gRPC status code.

No other module names a status code for an error. A class that is not listed has the codes of its
nearest listed base class, so a new error needs a row only where it differs from its parent.
"""

from typing import Final

from gateway.errors import (
    ConfigError,
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

#: gRPC's status codes: name -> number on the wire.
GRPC_CODES: Final[dict[str, int]] = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}

#: Error class -> (HTTP status, name of the gRPC code).
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
    # Reached by a call, it is about what the caller has sent.
    ConfigError: (400, "INVALID_ARGUMENT"),
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
