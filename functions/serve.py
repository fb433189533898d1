"""The server process: uvicorn around the app, drained before it stops."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from functions import logs
from functions.app import create_app
from functions.connection import Connection
from functions.invoke import open_invoker
from functions.probes import probed
from functions.replica import OpenWorker, Replica, open_replica
from functions.settings import Settings

GC_THRESHOLDS = (50_000, 20, 50)  # a run keeps all its chunks until it ends: full collections over them stall the loop
GRACEFUL_SECONDS = 3
BACKLOG = 2048
INHERITED = {  # by each connection: what the kernel keeps for a client, and how long for one that vanished
    "TCP_NOTSENT_LOWAT": 64 * 1024,
    "TCP_USER_TIMEOUT": 30_000,
}


class _Server(uvicorn.Server):
    """Says where it serves; when told to stop it accepts nothing more, drains, and only then waits for connections."""

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]], greet: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._drain, self._greet = drain, greet

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            tune_garbage_collection()
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._greet(f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """A connection that is kept would bring its client back here, to be sent away again until the drain is over."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Unlike the parent it does not raise the signal again: what the process started is ended first."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def tune_garbage_collection() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def listen(host: str, port: int, by: str = "--port") -> socket.socket:
    """Takes the port first of all, so that a second start fails before it has done anything."""
    try:
        listening = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise ValueError(f"{host}:{port} cannot be used: {error.strerror}. Choose another port with {by}.") from None
    for name, value in INHERITED.items():
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening


def serve(settings: Settings, url: str, listening: socket.socket, greet: Callable[[str], None]) -> int:
    """Blocks until the process is told to stop; gives the exit status."""
    logs.to_stderr(settings)
    if settings.worker == "on":
        asyncio.run(_check_model(settings))
    app = create_app(settings, url, _opener(settings))

    async def drain() -> None:
        replica: Replica | None = getattr(app.state, "replica", None)
        if replica is not None:
            await replica.drain()

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        server_header=False,
        forwarded_allow_ips=settings.proxies,
    )
    server = _Server(config, drain, greet)
    server.run([listening])
    return 0 if server.started else 1


def _opener(settings: Settings) -> OpenWorker | None:
    """Who answers the turns that are started here; None: workers elsewhere."""
    if settings.worker == "on":
        from functions.worker import open_worker  # with LangGraph, which who only serves does without

        return open_worker
    return open_invoker if settings.run_function else None


async def work(settings: Settings, url: str) -> None:
    """Only a worker, until SIGTERM or Ctrl-C; then it drains."""
    from functions.worker import open_worker

    logs.to_stderr(settings)
    await _check_model(settings)
    port = settings.metrics_port
    listening = listen("0.0.0.0", port, "PULSELINE_METRICS_PORT") if port is not None else None
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    async with open_replica(settings, url, open_worker) as replica, probed(replica, listening):
        tune_garbage_collection()
        logging.getLogger(__name__).info("working")
        await stop.wait()
        await replica.drain()


async def _check_model(settings: Settings) -> None:
    """Refused here with a sentence, where the server would print a traceback."""
    from graph.loading import load
    from graph.models import open_model
    from graph.retrieval.embed import open_embedder

    if settings.graph is not None:
        try:
            await load(settings.graph)
        except ValueError as error:
            raise ValueError(f"PULSELINE_GRAPH: {error}") from None
        return
    try:
        open_model(settings.model)
    except ValueError as error:
        raise ValueError(f"PULSELINE_MODEL: {error}") from None
    try:
        open_embedder(settings.embeddings)
    except ValueError as error:
        raise ValueError(f"PULSELINE_EMBEDDINGS: {error}") from None
