"""--web: a real server on a free port of localhost, its page, the app behind its socket, and who is turned away."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")


@pytest.fixture
def server():
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui.cli", "--web", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    found = re.match(r"http://localhost:(\d+) is the app", line)
    assert found, line + process.stdout.read()
    yield int(found[1])
    process.terminate()
    process.wait(20)


def test_the_page_and_the_app_behind_it(server):
    async def session():
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://localhost:{server}/") as answer:
                page = await answer.text()
                assert answer.status == 200 and "finetune-tui" in page
                assert "googleapis" not in page, "nothing is fetched from elsewhere"
            async with client.ws_connect(f"http://localhost:{server}/ws?width=80&height=24") as socket:
                seen = b""
                while b"No runs yet" not in seen:
                    message = await socket.receive(timeout=60)
                    assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, seen[-500:])
                    seen += message.data if isinstance(message.data, bytes) else message.data.encode()
                await asyncio.sleep(4)  # longer than the app takes to notice a terminal that is gone: there is none
                await socket.send_str(json.dumps(["stdin", "?"]))
                while b"WORDS" not in seen:
                    message = await socket.receive(timeout=60)
                    assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
                    seen += message.data if isinstance(message.data, bytes) else message.data.encode()

    asyncio.run(session())


def test_pages_from_elsewhere_are_turned_away(server):
    async def status(**headers):
        async with aiohttp.ClientSession() as client:
            try:
                async with client.ws_connect(f"http://localhost:{server}/ws", headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert asyncio.run(status(Origin="http://evil.example")) == 403
    assert asyncio.run(status(Host="evil.example")) == 403, "a name that was rebound to this machine"
    assert asyncio.run(status(Origin=f"http://localhost:{server}")) == 101


def said(*words):
    return subprocess.run([sys.executable, "-P", "-m", "tui.cli", *words], capture_output=True, text=True, timeout=60)


def test_a_port_that_is_taken_and_one_that_is_none(server):
    for port in (str(server), "70000"):
        done = said("--web", "--port", port)
        assert done.returncode == 2 and f"`{port}`" in done.stderr and "free port" in done.stderr, done.stderr


def test_a_command_beside_it_is_refused():
    done = said("--web", "runs")
    assert done.returncode == 2 and "takes no command" in done.stderr


def test_without_textual_serve_the_command_that_gets_it(tmp_path):
    code = "import sys; sys.modules['textual_serve'] = None; sys.argv = ['finetune-tui', '--web']; import tui.cli; sys.exit(tui.cli.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "pip install 'finetune-tui[web]'" in done.stderr, done.stderr
