// Candidates: what a browser learns of itself through STUN and TURN servers.

import { causeOf, isTurn } from "./ice.js";

/** A TLS handshake to a far server, and the retransmissions of a lossy way, fit in here. */
const GATHERING_MS = 15_000;
/** What browsers say in place of a server's code where there is none. */
const NO_ANSWER = 701;

/**
 * Gathers candidates through these servers, until there is one of the wanted type or no more come.
 * Returns them; the causes of what failed, in words, what servers said first; and whether there was
 * an answer: each of this machine's addresses asks by itself, and one that failed says so.
 */
export async function gather(iceServers, wanted) {
  const iceTransportPolicy = wanted === "relay" ? "relay" : "all";
  const connection = new RTCPeerConnection({ iceServers, iceTransportPolicy });
  const candidates = [];
  const failures = [];
  const done = new Promise((resolve) => {
    setTimeout(resolve, GATHERING_MS);
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (!candidate?.candidate) return candidate === null ? resolve() : undefined;
      candidates.push(described(candidate, iceServers));
      if (candidate.type === wanted) resolve();
    });
    connection.addEventListener("icecandidateerror", (event) => failures.push(event));
  });
  connection.createDataChannel("gathering");
  await connection.setLocalDescription();
  await done;
  connection.close();
  const asking = candidates.filter(({ type, protocol }) => type === "host" && protocol === "udp");
  failures.sort((a, b) => (a.errorCode === NO_ANSWER) - (b.errorCode === NO_ANSWER));
  return { candidates, errors: [...new Set(failures.map(causeOf))], answered: asking.length > failures.length };
}

function described(candidate, iceServers) {
  const { type, protocol, relayProtocol, address, port } = candidate;
  const bracketed = address?.includes(":") && !address.startsWith("[") ? `[${address}]` : address;
  return { type, protocol, relayProtocol, address: bracketed, port, url: candidate.url ?? iceServers[0]?.urls };
}

/** What can be said about the NAT in between. */
export async function natOf(servers) {
  const stun = servers
    .map(({ urls }) => urls)
    .filter((url) => !isTurn(url))
    .map((urls) => ({ urls }));
  if (stun.length === 0) return "Without a STUN server nothing can be said about the NAT.";
  const { candidates } = await gather(stun, "none");
  const hosts = candidates.filter(({ type }) => type === "host");
  const reflexive = candidates.filter(({ type, address }) => type === "srflx" && !address.includes(":"));
  const addresses = new Set(reflexive.map(({ address }) => address));
  const ports = new Set(reflexive.map(({ address, port }) => `${address}:${port}`));
  if (reflexive.length === 0) {
    return hosts.length > 0
      ? "No other address than this machine's own was seen: there is no NAT on the way to this server, or STUN is blocked."
      : "This browser shows no candidates at all; an extension or a policy may forbid it.";
  }
  const seen = `Seen from outside as ${[...addresses].join(" and ")}.`;
  if (stun.length < 2) {
    return `${seen} There is a NAT. With a second STUN server, on another address or port, this page could tell whether it is a symmetric one.`;
  }
  if (ports.size > addresses.size) {
    return `${seen} Each server saw another port: this looks like a symmetric NAT. Peers behind symmetric or port-restricted NATs will need the relay.`;
  }
  return `${seen} All servers saw the same port: the NAT keeps one mapping, and most peers can connect directly.`;
}
