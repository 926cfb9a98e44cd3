"""The server: GRPCInferenceService as KServe and Triton define it, on a port or a socket of its own."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from fastapi import FastAPI
from tritonclient.grpc import service_pb2

from service.http.bounds import Gate
from service.rpc.answers import Answers
from service.rpc.calls import Answer, Calls, Context
from service.settings import Settings
from service.sockets import claimed, identity, remove_socket

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
MAX_MESSAGE_BYTES = 2**22
"""Most bytes of a message, if `max_body_bytes` is not less: the default of gRPC."""
MAX_METADATA_BYTES = 2**14
SPARE_CALLS = 8
"""Calls, and connections, beyond those that find a place: probes, and those that are told that there is none."""


class RpcServer:
    """Serves an application's models over gRPC.

    All messages together are bounded by how many calls are at work at once: no more than fit into `max_bodies_bytes`.

    Args:
        app: as `service.app.create_app` makes it.
        settings: its bounds.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._answers = Answers(app)
        self._socket: tuple[Path, tuple[int, int]] | None = None
        message_bytes = min(settings.max_body_bytes, MAX_MESSAGE_BYTES)
        calls = min(settings.max_requests_in_flight, settings.max_bodies_bytes // message_bytes)
        places = Gate(calls, what="calls are open")
        self._calls = Calls(app.state.engine, keys=app.state.keys, places=places)
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=calls + SPARE_CALLS,
            options=[
                ("grpc.max_receive_message_length", message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", calls),
                ("grpc.max_metadata_size", MAX_METADATA_BYTES),
                # Metadata without end takes some 50 MB a connection, whatever its limit says (measured: grpcio 1.85).
                ("grpc.max_allowed_incoming_connections", calls + SPARE_CALLS),
                ("grpc.max_connection_idle_ms", settings.keep_alive_seconds * 1000),
                ("grpc.server_handshake_timeout_ms", int(settings.header_timeout_seconds * 1000)),
                ("grpc.so_reuseport", 1),  # for several workers; `tandem serve` has seen that nobody else has the port
            ],
        )
        handlers = {method.name: self._handler(method) for method in SERVICE.methods}
        known = {name: handler for name, handler in handlers.items() if handler is not None}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, known),))

    def listen_on_port(self, host: str, port: int) -> None:
        """Listens on a port once the server is started.

        Raises:
            ValueError: the port cannot be listened on.
        """
        try:
            self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise ValueError(f"cannot listen on {host}:{port} for gRPC: {error}") from error

    def listen_on_path(self, path: Path, *, mode: int) -> None:
        """Listens on a Unix domain socket once the server is started; its file goes when the server stops.

        gRPC would take the place of whatever socket is there, and let everybody connect whom the umask does not
        keep out. So its socket is made in a folder that is nobody else's, and moved when its permissions are set.

        Args:
            path: of the socket.
            mode: permissions of its file; who may write to it may connect.

        Raises:
            ValueError: the system does not allow it, or somebody else listens there.
        """
        path = path.absolute()
        try:
            with claimed(path), TemporaryDirectory(prefix=".", dir=path.parent) as private:
                made = Path(private, "s")
                self._server.add_insecure_port(f"unix:{made}")
                made.chmod(mode)
                os.rename(made, path)
                self._socket = path, identity(path)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"cannot listen on {path} for gRPC: {error}") from error

    async def start(self) -> None:
        """Answers calls from now on."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Refuses new calls, and gives those at work so long to end."""
        if self._socket is not None:
            path, made = self._socket
            remove_socket(path, made=made)
        await self._server.stop(seconds)

    def _handler(self, method: Any) -> grpc.RpcMethodHandler | None:
        """What answers a call of the protocol; None for those that are not served."""
        request = getattr(service_pb2, method.input_type.name)
        response = getattr(service_pb2, method.output_type.name)
        work: Answer | None = getattr(self._answers, method.name, None)
        if method.name == "ModelStreamInfer":

            async def answer(_: object, context: Context) -> None:
                await self._calls.answer_each(self._answers.ModelInfer, context)

        elif work is None:
            return None
        else:

            async def answer(_: object, context: Context) -> None:
                await self._calls.answer(work, context, request=request, response=response)

        return grpc.stream_stream_rpc_method_handler(answer, None, response.SerializeToString)
