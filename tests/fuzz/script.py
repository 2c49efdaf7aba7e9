"""A fuzz input as a script: steps of one byte, each followed by what it takes."""


class Script:
    """Reads an input from its start to its end; behind the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is any more of it."""
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        """The next ``size`` bytes as a number, the first one the highest."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or what there is of them."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken
