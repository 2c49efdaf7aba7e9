"""A gRPC client on python-hyper's h2: an HTTP/2 state machine that is independent of this project.

h2 raises ``ProtocolError`` for whatever a server has no right to send, and for whatever a client
has no right to: what it lets through is a valid sequence of frames.
"""

import select
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from tests.http2.answer import Answer
from tests.http2.calls import Fields
from tests.http2.connection import DEADLINE_S, connect
from tests.http2.frames import DEFAULT_WINDOW


class H2Client:
    """One connection.

    Attributes:
        connection: the state machine; whoever uses it calls ``flush`` after it.
        answers: what came on each stream.
        cancelled: the streams that this client has reset.
        unacknowledged: octets of DATA that came on each stream and were not given back.
    """

    def __init__(self, port: int, settings: dict[SettingCodes, int]) -> None:
        self.socket = connect(port)
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.answers: dict[int, Answer] = {}
        self.unacknowledged: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self._unconfirmed = 1
        # Sent in the preface, they hold for all that the server sends: h2 is told so thrice.
        ours = Settings(client=True, initial_values=settings)
        self.connection.local_settings = ours
        self.connection.decoder.max_allowed_table_size = ours.header_table_size
        self.connection.max_inbound_frame_size = ours.max_frame_size
        self.connection.initiate_connection()
        self.flush()

    def close(self) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send what the state machine wants sent."""
        self.socket.sendall(self.connection.data_to_send())

    def start(self, fields: Fields) -> int:
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, fields)
        self.answers[stream] = Answer(stream)
        return stream

    def cancel(self, stream: int) -> None:
        self.connection.reset_stream(stream, ErrorCodes.CANCEL)
        self.cancelled.add(stream)

    def change_settings(self, settings: dict[SettingCodes, int]) -> bool:
        """Send SETTINGS; false where the last ones have yet to be acknowledged.

        h2 counts all that it has sent as acknowledged by the first acknowledgement.
        """
        if self._unconfirmed:
            return False
        self.connection.update_settings(settings)
        self._unconfirmed += 1
        return True

    def room(self, stream: int) -> int:
        """The octets of payload that the server takes on ``stream`` now."""
        return min(
            self.connection.local_flow_control_window(stream),
            self.connection.max_outbound_frame_size,
        )

    def listen(self, wait_s: float) -> bool:
        """Take in what has come; false where nothing came within ``wait_s``."""
        if not select.select([self.socket], [], [], wait_s)[0]:
            return False
        received = self.socket.recv(1 << 16)
        assert received, "the server closed the connection"
        for event in self.connection.receive_data(received):
            self._take(event)
        self.flush()
        return True

    def acknowledge(self, stream: int) -> None:
        """Give back to the server's windows what came on ``stream``."""
        octets = self.unacknowledged.pop(stream, 0)
        if octets:
            # Not by h2's own way, which waits for a part of the window to be used up.
            self.connection.increment_flow_control_window(octets)
            if not self.answers[stream].over and stream not in self.cancelled:
                self.connection.increment_flow_control_window(octets, stream)

    def finish(self, streams: set[int]) -> None:
        """Open the windows and listen until ``streams`` are over."""
        deadline = time.monotonic() + DEADLINE_S
        opened = False
        while not all(self.answers[stream].over for stream in streams):
            opened = opened or self.change_settings(
                {SettingCodes.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW}
            )
            for stream in list(self.unacknowledged):
                self.acknowledge(stream)
            self.flush()
            self.listen(0.1)
            assert time.monotonic() < deadline, [self.answers[stream] for stream in streams]

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                ended = event.stream_ended is not None
                self.answers[event.stream_id].add_block(list(event.headers), ended)
            case DataReceived():
                if event.flow_controlled_length:
                    held = self.unacknowledged.get(event.stream_id, 0)
                    self.unacknowledged[event.stream_id] = held + event.flow_controlled_length
                self.answers[event.stream_id].add_data(event.data, False)
            case StreamEnded():
                self.answers[event.stream_id].ended = True
            case StreamReset():
                self.answers[event.stream_id].reset = int(event.error_code)
            case SettingsAcknowledged():
                self._unconfirmed -= 1
            case ConnectionTerminated():
                raise AssertionError(f"GOAWAY {ErrorCodes(event.error_code).name}")
