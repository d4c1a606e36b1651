// A WebSocket client of another implementation, the npm package `ws`: joins, signals, and is refused.
//
// usage: node client.mjs WS OPEN_URL CLOSED_URL TOKEN, where WS is the package.

import assert from "node:assert/strict";

const [ws, openUrl, closedUrl, token] = process.argv.slice(2);
const { WebSocket } = await import(ws);
const ORIGIN = "http://localhost:5173";

/** An open socket whose messages wait to be heard one by one. */
async function connect(url, { protocols = [], origin = ORIGIN, ...more } = {}) {
  const socket = new WebSocket(url, protocols, { origin, ...more });
  const messages = [];
  let wake = () => {};
  socket.on("message", (data, isBinary) => {
    assert.equal(isBinary, false);
    messages.push(JSON.parse(data));
    wake();
  });
  socket.hear = async () => {
    while (messages.length === 0) await new Promise((resolve) => { wake = resolve; });
    return messages.shift();
  };
  socket.say = (message) => socket.send(JSON.stringify(message));
  await new Promise((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("unexpected-response", (_, { statusCode }) => reject(Object.assign(new Error("refused"), { statusCode })));
    socket.once("error", reject);
  });
  return socket;
}

const refused = (url, options, statusCode) => assert.rejects(connect(url, options), { statusCode });

async function signal() {
  const [alice, bob] = [await connect(openUrl), await connect(openUrl)];
  alice.say({ type: "join", from: "alice", room: "r" });
  const welcome = await alice.hear();
  assert.equal(welcome.type, "welcome");
  assert.equal(welcome.payload.iceServers[0].username, "dev");
  assert.deepEqual((await alice.hear()).payload, { peers: [] });
  bob.say({ type: "join", from: "bob", room: "r" });
  assert.equal((await bob.hear()).type, "welcome");
  assert.deepEqual((await bob.hear()).payload, { peers: [{ id: "alice", polite: true }] });
  assert.equal((await alice.hear()).type, "peer-joined");
  for (const [type, sender, from, receiver, to] of [
    ["offer", alice, "alice", bob, "bob"],
    ["answer", bob, "bob", alice, "alice"],
    ["candidate", alice, "alice", bob, "bob"],
  ]) {
    const message = { type, from, to, payload: { sdp: "v=0\r\n…" } };
    sender.say(message);
    assert.deepEqual(await receiver.hear(), message);
  }
  alice.say({ type: "leave", to: "bob" });
  assert.deepEqual(await bob.hear(), { type: "leave", from: "alice", to: "bob" });
  assert.equal((await bob.hear()).type, "peer-left");
  for (const socket of [alice, bob]) {
    socket.close(1000);
    const [code] = await new Promise((resolve) => { socket.once("close", (...all) => resolve(all)); });
    assert.equal(code, 1000);
  }
}

async function oversized() {
  const socket = await connect(openUrl);
  socket.send("x".repeat(70_000));
  const code = await new Promise((resolve) => { socket.once("close", resolve); });
  assert.equal(code, 1009);
}

async function authorized() {
  await refused(`${closedUrl}?token=${token.slice(0, -2)}`, {}, 401);
  const protocols = ["hairpin", `hairpin.token.${token}`];
  const socket = await connect(closedUrl, { protocols });
  assert.equal(socket.protocol, "hairpin");
  socket.say({ type: "join", room: "r" });
  const { payload } = await socket.hear();
  assert.match(payload.id, /^alice#/);
  assert.ok(payload.iceServers[0].credential);
  socket.terminate();
}

await refused(openUrl, { origin: "https://evil.test" }, 403);
await refused(openUrl, { origin: "null" }, 403);
await signal();
await oversized();
await authorized();
// It asks for compression by itself; the server does not agree to any.
const socket = await connect(openUrl);
assert.equal(socket.extensions, "");
socket.terminate();
console.log("done");
