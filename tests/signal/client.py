"""Two peers of another implementation: client.py OPEN_URL CLOSED_URL TOKEN TLS_URL"""

import asyncio
import json
import ssl
import sys

import websockets

ORIGIN = "http://localhost:5173"


def connect(url, **more):
    return websockets.connect(url, origin=more.pop("origin", ORIGIN), **more)


async def say(socket, **message):
    await socket.send(json.dumps(message))


async def hear(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), 60))


async def refused(url, status, **more):
    try:
        async with connect(url, **more):
            raise AssertionError(f"not refused: {more}")
    except websockets.InvalidStatusCode as error:
        assert error.status_code == status, error


async def plain_protocol(url, **more):
    """What the introductory texts do: join, offer, answer, candidate."""
    async with connect(url, **more) as alice, connect(url, **more) as bob:
        for name, socket in (("alice", alice), ("bob", bob)):
            await say(socket, type="join", **{"from": name})
            assert (await hear(socket))["type"] == "welcome"
        for kind, sender, name, receiver, other in (
            ("offer", alice, "alice", bob, "bob"),
            ("answer", bob, "bob", alice, "alice"),
            ("candidate", alice, "alice", bob, "bob"),
        ):
            payload = {"sdp": "v=0\r\n…"}
            message = {"type": kind, "from": name, "to": other, "payload": payload}
            await say(sender, **message)
            assert await hear(receiver) == message
        await say(alice, type="offer", to="carol", payload={})
        error = await hear(alice)
        assert error["type"] == "error" and error["from"] == "server", error
        assert error["payload"]["message"] == "Target peer not online", error


async def oversized(url):
    async with connect(url) as socket:
        await socket.send("x" * 70_000)
        try:
            await asyncio.wait_for(socket.recv(), 60)
            raise AssertionError("not closed")
        except websockets.ConnectionClosed as closed:
            assert closed.code == 1009, closed


async def token(url, good):
    await refused(url + "?token=" + good[:-2], 401)
    protocols = ["hairpin", "hairpin.token." + good]
    async with connect(url, subprotocols=protocols) as socket:
        assert socket.subprotocol == "hairpin"
        await say(socket, type="join", room="r")
        welcome = await hear(socket)
        assert welcome["payload"]["id"].startswith("alice#"), welcome
        assert welcome["payload"]["iceServers"][0]["credential"], welcome


async def compression(url):
    """It asks for compression by itself; the server does not agree to any."""
    async with connect(url, compression="deflate") as socket:
        assert not socket.extensions, socket.extensions


async def main(open_url, closed_url, good, tls_url):
    await refused(open_url, 403, origin="https://evil.test")
    await refused(open_url, 403, origin=None)
    await plain_protocol(open_url)
    # On the port of TURN, with the certificate of --dev, which nobody knows.
    await plain_protocol(tls_url, ssl=ssl._create_unverified_context())
    await oversized(open_url)
    await compression(open_url)
    await token(closed_url, good)
    print("done")


asyncio.run(main(*sys.argv[1:]))
