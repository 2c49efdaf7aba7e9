"""What the operator's file says of an address that is posted to, and the posting itself.

::

    url = "https://..."                        # or { env = "NAME" }, or { file = "path" }
    secret = { file = "retrain.secret" }       # signs the body
    headers = { Authorization = { env = "CI_TOKEN" } }
    timeout_s = 10
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitor.http_post import Address, Answer
from gateway.monitor.signing import parse_secret, signature_headers
from gateway.monitoring_file import Part, Secret
from gateway.tables import Check, number, table, wrong

#: What says that a server is meant that is none of a browser's.
USER_AGENT: Final = "onnx-gateway"
DEFAULT_TIMEOUT_S: Final = 10.0


class Post:
    """Posts JSON to one address, one body after the other, on a thread of its own."""

    def __init__(
        self,
        *,
        name: str,
        address: Address,
        secret: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        scrub: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Post to ``address``.

        Args:
            name: of the thread.
            secret: signs the bodies; ``None`` for no signature.
            timeout_s: for the connection, and for the answer.
            scrub: takes secrets out of what the receiver says.
            clock: Unix seconds, for the signature.
        """
        self._address: Final = address
        self._secret: Final = secret
        self._headers: Final = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            **(headers or {}),
        }
        self._timeout_s: Final = timeout_s
        self._scrub: Final = scrub
        self._clock: Final = clock
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix=f"post-{name}")

    async def send(self, body: bytes, id: str) -> Answer:
        """Post ``body`` once; ``id`` is the same whenever the same thing is posted again."""
        sent = {**self._headers, "Idempotency-Key": id}
        if self._secret is not None:
            sent |= signature_headers(self._secret, id, int(self._clock()), body)
        answer = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._address.post, body, sent, self._timeout_s
        )
        return Answer(
            status=answer.status,
            text=self._scrub(answer.text),
            retry_after_s=answer.retry_after_s,
        )

    def close(self) -> None:
        """Wait for nobody any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        # Else the interpreter would wait at its end for whoever does not answer.
        self._address.abort()


def post_fields(part: Part) -> dict[str, Check]:
    """The keys above."""
    return {
        "url": part.secret,
        "secret": part.secret,
        "headers": lambda where, value: _headers(part, where, value),
        "timeout_s": _timeout,
    }


def read_post(part: Part, values: Mapping[str, Any]) -> Post:
    """What they say.

    Raises:
        ConfigError: the URL is none, or the secret.
    """
    secret: Secret | None = values.get("secret")
    return Post(
        name=part.name,
        address=Address(values["url"].reveal(), f"{part.where}url"),
        secret=None if secret is None else parse_secret(secret.reveal(), f"{part.where}secret"),
        headers=values.get("headers"),
        timeout_s=values.get("timeout_s", DEFAULT_TIMEOUT_S),
        scrub=part.scrub,
    )


def _headers(part: Part, where: str, value: Any) -> dict[str, str]:
    read = {}
    for name, item in table(where, value).items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"{where}: {name!r} is no name of a header")
        # What stands in the file as it is is no secret.
        given = item if isinstance(item, str) else part.secret(f"{where}.{name}", item).reveal()
        if not given.isascii() or not given.isprintable():
            raise ConfigError(f"{where}.{name} must be printable ASCII text")
        read[name] = given
    return read


def _timeout(where: str, value: Any) -> float:
    if not 0 < number(where, value) <= 3600:
        raise wrong(where, "seconds above 0 and at most 3600", value)
    return float(value)
