"""--web: the app in a browser on this machine, through textual-serve. Each page that is opened is an app of its own."""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import socket
import sys
from typing import Any

from recipes.errors import InputError, Problem

HOST = "localhost"


def serve(options: argparse.Namespace) -> int:
    """Serve until Ctrl+C. Only this machine can connect; through ``ssh -L`` from another."""
    try:
        import textual_serve  # noqa: F401
    except ImportError:
        command = f"{sys.executable} -m pip install 'finetune-tui[web]'"
        raise InputError(
            [Problem("--web", None, None, "no textual-serve on this machine", f"it, by `{command}`")]
        ) from None
    _server(_free_port(options.port)).serve()
    return 0


def _server(port: int) -> Any:
    from aiohttp import web
    from textual_serve.server import Server

    own = [f"http://{name}:{port}" for name in (HOST, "127.0.0.1")]

    @web.middleware
    async def from_here_alone(request: web.Request, handler: Any) -> web.StreamResponse:
        """Its page asks for a font of Google's: nothing of ours goes to the network unasked."""
        response = await handler(request)
        if request.path == "/":
            response.text = re.sub(r"<link[^>]*googleapis[^>]*>", "", response.text)
        return response

    async def announce() -> None:
        """Once it can be connected to."""
        while True:
            try:
                (await asyncio.open_connection(HOST, port))[1].close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        print(f"{own[0]} is the app, for this machine alone; Ctrl+C ends it, runs go on", flush=True)

    class Local(Server):
        def initialize_logging(self) -> None:
            """Its lines on every request are nobody's news."""

        async def on_startup(self, app: web.Application) -> None:
            asyncio.get_running_loop().create_task(announce())

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(from_here_alone)
            return app

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            # A page from elsewhere, open in the same browser, could otherwise press our keys.
            if request.headers.get("Origin", own[0]) not in own or f"http://{request.host}" not in own:
                raise web.HTTPForbidden(text="only this server's own page may connect")
            return await super().handle_websocket(request)

    return Local(shlex.join([sys.executable, "-P", "-m", "tui.app"]), host=HOST, port=port, title="finetune-tui")


def _free_port(wanted: int) -> int:
    """``wanted`` if nobody listens there; for 0 one that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except (OSError, OverflowError) as error:
            found = f"`{wanted}`: {getattr(error, 'strerror', None) or error}"
            raise InputError([Problem("--port", None, None, found, "a free port from 1024 to 65535, or 0")]) from None
        return int(probe.getsockname()[1])
