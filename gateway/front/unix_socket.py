"""The path of a unix socket, cleared of what a server that is gone has left there."""

import os
import socket
import stat
from typing import Final

from gateway.errors import StartupError

#: Seconds that a server behind a socket file gets to accept a connection.
_PATIENCE_S: Final = 1.0


def claim(path: str, option: str) -> None:
    """Remove the socket file at ``path`` that nobody listens on any more, if there is one.

    Raises ``StartupError``, naming ``option``, where something listens there, or where ``path`` is
    something else than a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartupError(f"{option}: cannot listen on {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise StartupError(
            f"{option}: {path} is there and is no socket; remove it or choose another path"
        )
    if _is_listened_on(path):
        raise StartupError(
            f"{option}: another server listens on {path}; stop it or choose another path"
        )
    try:
        os.unlink(path)
    except OSError as error:
        raise StartupError(
            f"{option}: cannot remove {path}, which a server has left: {error.strerror}"
        ) from None


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PATIENCE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            # Whoever is too busy to accept, or does not let us in, is there.
            return True
    return True
