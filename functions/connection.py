"""A connection on which no response is under way is closed after a while, whatever bytes come, and so is one that takes
nothing of its response: uvicorn itself waits for ever."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # from the connection, the last response or a head's first byte to the head's end
HEAD_MAX_BYTES = 64 * 1024
UNREAD_SECONDS = 2.0  # for a client that is still sending to read its answer; to close at once would take it away
STALLED_SECONDS = 30.0  # a client that takes nothing for so long is dropped; a tail resumes by its cursor


class Connection(HttpToolsProtocol):
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _answering = False
    _in_head = True
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_in(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        """What comes in one piece with a head is not counted to it."""
        if self._in_head:
            head, data = _cut(data, HEAD_MAX_BYTES - self._head_bytes)
            self._head_bytes += len(head)
            super().data_received(head)
            if self._expects_head() and data:
                self.transport.close()
        if data and not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        if not self._answering:
            self._close_in(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._answering, self._in_head, self._head_bytes = True, False, 0
        self._stay()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answering = bool(self.pipeline)  # requests that came before this one was answered
        super().on_response_complete()
        if not self._answering and not self.transport.is_closing():
            self._close_in(UNREAD_SECONDS if self.cycle.more_body else HEAD_SECONDS)

    def pause_writing(self) -> None:
        """The socket's buffer is full. What waits in it is dropped with the connection: closing would wait for it."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._moves()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stay()
        self._moves()
        super().connection_lost(exc)

    def _expects_head(self) -> bool:
        return self._in_head

    def _moves(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _close_in(self, seconds: float) -> None:
        self._stay()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stay(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _cut(data: bytes, at: int) -> tuple[bytes, bytes]:
    return (data, b"") if len(data) <= at else (data[:at], data[at:])
