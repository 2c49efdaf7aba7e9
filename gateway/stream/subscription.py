"""One subscriber's bounded buffer of blocks, and the account of what became of each prediction."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from gateway.stream.block import Block


@dataclass(slots=True)
class Account:
    """What became of a model's predictions on their way to one subscriber, in rows.

    At any time ``served = sampled_out + sum(dropped) + delivered + sum(lost) + buffered``. The
    first four are written by the event loop's thread, the others by the subscriber's.

    Attributes:
        served: answered since the subscription began.
        sampled_out: not published, by the model's sampling rate.
        dropped: not put into the buffer, by reason: ``buffer_full``, or ``rerun`` (the batch failed
            and its requests were run one by one, which is not published), or ``unpublishable`` (a
            fault of ours, in the log).
        put: put into the buffer.
        delivered: taken out and dealt with.
        lost: taken out and given up, by reason.
    """

    served: int = 0
    sampled_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    put: int = 0
    delivered: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, rows: int) -> None:
        """Count ``rows`` that are not put into the buffer."""
        self.dropped[reason] = self.dropped.get(reason, 0) + rows

    @property
    def buffered(self) -> int:
        """In the buffer, or taken out and not yet dealt with."""
        return self.put - self.delivered - sum(self.lost.values())

    def add(self, other: "Account") -> None:
        """Add the figures of ``other``, which is of the same model."""
        self.served += other.served
        self.sampled_out += other.sampled_out
        self.put += other.put
        self.delivered += other.delivered
        for mine, theirs in ((self.dropped, other.dropped), (self.lost, other.lost)):
            for reason, rows in tuple(theirs.items()):
                mine[reason] = mine.get(reason, 0) + rows


class Subscription:
    """A bounded buffer between the event loop, which fills it, and one subscriber's thread.

    The loop never waits: what does not fit is dropped and counted.

    Args:
        name: the subscriber's, for metrics and messages.
        models: patterns of the models that it watches, as in a shell.
        max_bytes: of blocks in the buffer, those that were taken and not dealt with included.
        wants_ids, wants_event_ids: whether blocks must have them.
        labelled_only: whether it watches those models alone whose predictions are kept for labels.
        notify: called on the loop's thread when there is something to take, once until the next
            ``take``; must not wait or raise.

    Attributes:
        without: models that it does not watch although a pattern fits; after a change the stream
            is to ``reconnect``.
    """

    def __init__(
        self,
        name: str,
        *,
        models: Sequence[str] = ("*",),
        max_bytes: int = 16 << 20,
        wants_ids: bool = False,
        wants_event_ids: bool = False,
        labelled_only: bool = False,
        notify: Callable[[], None],
    ) -> None:
        self.name: Final = name
        self.wants_ids: Final = wants_ids
        self.wants_event_ids: Final = wants_event_ids
        self.labelled_only: Final = labelled_only
        self.accounts: Final[dict[str, Account]] = {}
        self.without: frozenset[str] = frozenset()
        self._models: Final = tuple(models)
        self._max_bytes: Final = max_bytes
        self._notify: Final = notify
        self._blocks: Final[deque[Block]] = deque()
        self._notified = False
        self._put_bytes = 0
        self._done_bytes = 0
        self._put_rows = 0
        self._done_rows = 0

    def watches(self, model: str) -> bool:
        """Whether it wants the predictions of ``model``."""
        return model not in self.without and any(
            fnmatchcase(model, pattern) for pattern in self._models
        )

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the blocks that are in the buffer, or taken and not yet dealt with."""
        return self._put_bytes - self._done_bytes

    @property
    def buffered_rows(self) -> int:
        """Rows of which nothing is settled yet, in the buffer or taken."""
        return self._put_rows - self._done_rows

    # -- the event loop's side ----------------------------------------------------------------

    def account(self, model: str) -> Account:
        """The account of ``model``, opened where there is none."""
        account = self.accounts.get(model)
        if account is None:
            account = self.accounts[model] = Account()
        return account

    def has_room(self) -> bool:
        """Whether a block may be put."""
        return self._put_bytes - self._done_bytes < self._max_bytes

    def put(self, block: Block, account: Account) -> None:
        """Put a block into the buffer; ``has_room`` was true."""
        account.put += block.rows
        self._put_rows += block.rows
        self._put_bytes += block.nbytes
        self._blocks.append(block)
        if not self._notified:
            self._notified = True
            self._notify()

    # -- the subscriber's side ----------------------------------------------------------------

    def take(self, max_rows: int = 1 << 62) -> list[Block]:
        """Blocks in their order, of at least ``max_rows`` rows where there are so many.

        Each must be passed to ``delivered`` or ``lost``. An empty list says that ``notify`` will be
        called again.
        """
        # First: what is put from here on is either found below or told of anew.
        self._notified = False
        taken: list[Block] = []
        rows = 0
        while rows < max_rows and self._blocks:
            block = self._blocks.popleft()
            taken.append(block)
            rows += block.rows
        return taken

    def delivered(self, blocks: Iterable[Block]) -> None:
        """The subscriber has dealt with ``blocks``."""
        for block in blocks:
            self.settle(block, block.rows)
            self.release(block)

    def pass_over(self, model: str, rows: int) -> None:
        """Of what was taken and delivered, ``rows`` were not wanted: they are sampled out.

        For a subscriber that lives on the event loop's thread.
        """
        account = self.accounts[model]
        account.sampled_out += rows
        account.put -= rows
        account.delivered -= rows

    def lost(self, blocks: Iterable[Block], reason: str) -> None:
        """The subscriber has given ``blocks`` up."""
        for block in blocks:
            self.settle(block, block.rows, reason)
            self.release(block)

    def settle(self, block: Block, rows: int, lost: str = "") -> None:
        """``rows`` rows of ``block`` are dealt with, or given up for the reason ``lost``.

        For who deals with a block in parts; once nothing of it is left, ``release`` must follow.
        """
        account = self.accounts[block.model]
        if lost:
            account.lost[lost] = account.lost.get(lost, 0) + rows
        else:
            account.delivered += rows
        self._done_rows += rows

    def release(self, block: Block) -> None:
        """``block`` is kept no longer: there is room for another one."""
        self._done_bytes += block.nbytes
