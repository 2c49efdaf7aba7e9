"""Heads of inference requests that the parser has read before.

A client sends the same head with every request. Once the parser has read one, the same bytes at
the start of a message can mean nothing else, so they are found again by comparing them, and a
request that arrives whole in one piece does not go through the parser at all.
"""

from typing import Final, NamedTuple

_END: Final = b"\r\n\r\n"
#: Heads that are kept, and the longest that is.
_MAX_HEADS: Final = 512
_MAX_HEAD_BYTES: Final = 2048
#: What a head may not ask for: the parser must see such requests.
_NEVER: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade"))


class KnownHead(NamedTuple):
    """What a head says: model and version, the headers by lower-case name, the body's size."""

    target: tuple[str, str]
    fields: dict[bytes, bytes]
    length: int


class KnownHeads:
    """The heads seen by all connections of one front; for the event loop's thread."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The head and the body of ``data`` if it is exactly one request with a known head."""
        end = data.find(_END) + len(_END)
        known = self._heads.get(data[:end])
        if known is None or len(data) - end != known.length:
            return None
        return known, data[end:]

    def learn(
        self, data: bytes, target: tuple[str, str], fields: dict[bytes, bytes], count: int
    ) -> None:
        """Remember the head that ``data`` starts with, which the parser has read.

        Only a head of one line a header is kept: then its end is where the parser saw it too.

        Args:
            data: starts with the head of a POST that keeps the connection alive.
            target: the model and version of its URL.
            fields: its headers by lower-case name.
            count: how many header lines the parser reported.
        """
        end = data.find(_END) + len(_END)
        head = data[:end]
        lines = head.count(b"\r\n")
        length = fields.get(b"content-length")
        if (
            length is None
            or end > _MAX_HEAD_BYTES
            or lines != count + 2
            or lines != head.count(b"\n")
            or not _NEVER.isdisjoint(fields)
        ):
            return
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[head] = KnownHead(target, fields, int(length))
