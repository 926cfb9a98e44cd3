"""uvicorn's WebSockets with bounds on frames that bring nothing, and on clients that do not read."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from service.processes.connections import BAD_REQUEST, Deadlines

MAX_IDLE_FRAMES = 256
"""Most frames between two messages, such as pings and the pieces of a message."""
POLICY_VIOLATION = 1008


class WebSocketProtocol(Deadlines, WebSocketsSansIOProtocol):
    """A WebSocket with these bounds."""

    _idle_frames = 0

    def write_seconds(self) -> float:
        # The application gives up after half of this time, and then still sends the reason.
        return 2 * self.bounds.stream_send_seconds

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self.handshake_initiated:
            # The headers have all come, so the library does not take them, and uvicorn does not notice that.
            self.transport.write(b"".join(self.conn.data_to_send()) or BAD_REQUEST)
            self.transport.close()
        elif self._idle_frames > MAX_IDLE_FRAMES and not self.transport.is_closing():
            self.conn.fail(POLICY_VIOLATION, f"more than {MAX_IDLE_FRAMES} frames without a message")
            self.handle_parser_exception()

    async def send(self, message: Any) -> None:
        await super().send(message)
        if self.close_sent:  # also by an answer other than 101, after which uvicorn would log an error
            self.handshake_complete = True

    def handle_cont(self, event: Frame) -> None:
        self._idle_frames += 1
        super().handle_cont(event)

    def handle_ping(self) -> None:
        self._idle_frames += 1
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._idle_frames += 1
        super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        self._idle_frames = 0
        super().send_receive_event_to_app()
