"""Every error that the gateway tells a caller about.

::

    GatewayError
    ├── InvalidRequest            the caller's fault; sending it again will not help
    │   ├── MalformedRequest      the bytes do not parse
    │   ├── InvalidTensor         a tensor does not fit the model's signature
    │   └── RequestTooLarge       over a limit of the server; the message names its option
    ├── NotFound                  no such thing
    │   ├── ModelNotFound         unknown model or version
    │   └── NoAvailableVersion    the model is known, nothing of it is loaded
    ├── Conflict                  it exists already
    ├── Unavailable               may work later
    │   ├── ModelNotReady         the version exists in a state that does not serve
    │   │   └── SwapInPlace       the old version has gone, the new one is not there yet
    │   ├── QueueFull             the version's queue is full
    │   ├── ShuttingDown          the server is draining
    │   └── StateUnavailable      a decision cannot be written down
    ├── DeadlineExceeded          the caller's deadline passed before an answer was made
    ├── RequestCancelled          the caller left
    ├── Unsupported               the protocol knows it, this server does not do it
    ├── InferenceFailed           ONNX Runtime refused or failed to run the model
    └── StartupError              ends a command: shown without a traceback
        ├── ConfigError           a setting is wrong; the message names its key and source
        └── LoadError             a model cannot be served; the message says why

Nothing here knows HTTP or gRPC: ``front/status.py`` holds the one table that maps a class to
their codes. A message tells what was expected, what was given and how to mend it.
"""


class GatewayError(Exception):
    """The root: ``str(error)`` is the message for the caller."""


class InvalidRequest(GatewayError):
    """The request is wrong; the same bytes will fail again."""


class MalformedRequest(InvalidRequest):
    """The bytes do not parse; the message says where they broke."""


class InvalidTensor(InvalidRequest):
    """An input or a requested output does not fit the model's signature."""


class RequestTooLarge(InvalidRequest):
    """A limit of the server was passed; the message names it and the option that raises it."""


class NotFound(GatewayError):
    """There is no such thing."""


class ModelNotFound(NotFound):
    """The model, or that version of it, is unknown."""


class NoAvailableVersion(NotFound):
    """The model is known, but none of its versions is loaded."""


class Conflict(GatewayError):
    """The thing to be made exists already."""


class Unavailable(GatewayError):
    """Not now; the same request may succeed later."""

    #: Seconds after which a retry makes sense; ``None`` where nobody can tell.
    retry_after_s: float | None = None


class ModelNotReady(Unavailable):
    """The version exists, in a state that does not serve; the message names the state."""


class SwapInPlace(ModelNotReady):
    """The version that served has made room for its successor, which is being loaded."""

    retry_after_s = 1.0


class QueueFull(Unavailable):
    """The version's queue holds as many requests as it may."""

    retry_after_s = 1.0


class ShuttingDown(Unavailable):
    """The server is draining and takes no new work."""

    retry_after_s = 1.0


class StateUnavailable(Unavailable):
    """What was decided cannot be written to the disk; nothing has changed."""


class DeadlineExceeded(GatewayError):
    """The caller's deadline passed; the message says how long the request waited."""


class RequestCancelled(GatewayError):
    """The caller left before its answer was made."""


class Unsupported(GatewayError):
    """A part of the protocol that this server does not offer."""


class InferenceFailed(GatewayError):
    """ONNX Runtime failed on this request; carries ONNX Runtime's own message."""


class StartupError(GatewayError):
    """Ends a command with its message alone, no traceback."""


class ConfigError(StartupError):
    """A setting is wrong; the message names the key, its source and what is allowed."""


class LoadError(StartupError):
    """A model version cannot be served; the message says which part of it and why."""
