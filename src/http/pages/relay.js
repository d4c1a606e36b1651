// Bytes through a relay: two connections of this page that may use nothing else.

const CONNECTING_MS = 15_000;
const PINGS = 50;
const PING_INTERVAL_MS = 20;
/** What comes later than this counts as lost. */
const LATE_MS = 2000;
const STREAMING_MS = 2000;
const CHUNK = new Uint8Array(16 * 1024);
/** Enough to keep the way full, little enough to stay honest about what has left. */
const BUFFERED_MAX = 1024 * 1024;

/** Measures what a TURN server relays. Throws where nothing comes through. */
export async function relay(server) {
  const configuration = { iceServers: [server], iceTransportPolicy: "relay" };
  const near = new RTCPeerConnection(configuration);
  const far = new RTCPeerConnection(configuration);
  try {
    near.addEventListener("icecandidate", ({ candidate }) => far.addIceCandidate(candidate).catch(() => {}));
    far.addEventListener("icecandidate", ({ candidate }) => near.addIceCandidate(candidate).catch(() => {}));
    const unreliable = { negotiated: true, id: 1, ordered: false, maxRetransmits: 0 };
    const pings = pair(near, far, "pings", unreliable);
    const stream = pair(near, far, "stream", { negotiated: true, id: 2 });
    await near.setLocalDescription();
    await far.setRemoteDescription(near.localDescription);
    await far.setLocalDescription();
    await near.setRemoteDescription(far.localDescription);
    await Promise.all([opened(pings), opened(stream)]);
    return { ...await ping(pings), throughput: await pour(stream) };
  } finally {
    near.close();
    far.close();
  }
}

function pair(near, far, label, options) {
  const [from, to] = [near, far].map((connection) => connection.createDataChannel(label, options));
  to.binaryType = "arraybuffer";
  return { from, to };
}

async function opened({ from, to }) {
  const open = (channel) => channel.readyState === "open" || new Promise((resolve) => {
    channel.addEventListener("open", resolve, { once: true });
  });
  const late = new Promise((_, reject) => {
    const message = "The server gave out a relayed address, but nothing comes through it: it may forbid relaying to itself, or its relay ports are closed.";
    setTimeout(() => reject(new Error(message)), CONNECTING_MS);
  });
  await Promise.race([Promise.all([open(from), open(to)]), late]);
}

async function ping({ from, to }) {
  const sent = new Map();
  const trips = [];
  to.addEventListener("message", ({ data }) => to.send(data));
  from.addEventListener("message", ({ data }) => trips.push(performance.now() - sent.get(data)));
  for (let number = 0; number < PINGS; number += 1) {
    const name = String(number);
    sent.set(name, performance.now());
    from.send(name);
    await sleep(PING_INTERVAL_MS);
  }
  const deadline = performance.now() + LATE_MS;
  while (trips.length < PINGS && performance.now() < deadline) await sleep(PING_INTERVAL_MS);
  if (trips.length === 0) throw new Error("A connection came about, but every datagram was lost.");
  trips.sort((a, b) => a - b);
  const quantile = (share) => trips[Math.min(trips.length - 1, Math.floor(trips.length * share))];
  return { rtt: { median: quantile(0.5), p95: quantile(0.95) }, loss: 1 - trips.length / PINGS };
}

/** Bits per second, as they arrive. */
async function pour({ from, to }) {
  let [bytes, first, last] = [0, 0, 0];
  to.addEventListener("message", ({ data }) => {
    last = performance.now();
    // What came first started the clock; how long it took is not known.
    if (first === 0) first = last;
    else bytes += data.byteLength;
  });
  const end = performance.now() + STREAMING_MS;
  while (performance.now() < end) {
    while (from.bufferedAmount < BUFFERED_MAX) from.send(CHUNK);
    await sleep(5);
  }
  return last > first ? bytes * 8000 / (last - first) : 0;
}

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
