// Candidates: what a browser learns of itself through STUN and TURN servers.

import { causeOf, hostOf, isTurn, transportOf } from "./ice.js";

/** A TLS handshake to a far server, and the retransmissions of a lossy way, fit in here. */
const GATHERING_MS = 15_000;
/** What browsers say in place of a server's code where there is none. */
const NO_ANSWER = 701;

/**
 * Gathers candidates through these servers, until there is one of the wanted type or no more come.
 * Returns them; the causes of what failed, in words, what servers said first; and the URLs that were
 * answered from: each of this machine's addresses asks by itself, and one that failed says so.
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
  const failuresOf = (url) => failures.filter((failure) => !failure.url || hostOf(failure.url) === hostOf(url));
  const answering = iceServers.map(({ urls }) => urls).filter((url) => asking.length > failuresOf(url).length
    || candidates.some((found) => found.type !== "host" && found.url && hostOf(found.url) === hostOf(url)));
  failures.sort((a, b) => (a.errorCode === NO_ANSWER) - (b.errorCode === NO_ANSWER));
  return { candidates, errors: [...new Set(failures.map(causeOf))], answering };
}

function described(candidate, iceServers) {
  const { type, protocol, relayProtocol, address, port, relatedAddress, relatedPort } = candidate;
  const bracketed = address?.includes(":") && !address.startsWith("[") ? `[${address}]` : address;
  // Where the browser hides which of this machine's addresses it is about, the port is 0.
  const base = relatedPort ? `${relatedAddress}:${relatedPort}` : undefined;
  const url = candidate.url ?? iceServers[0]?.urls;
  // Firefox says it only where it is not UDP.
  const reachedOver = type === "relay" ? relayProtocol ?? transportOf(url) : undefined;
  return { type, protocol, relayProtocol: reachedOver, address: bracketed, port, base, url };
}

/** What can be said about the NAT in between. */
export async function natOf(servers) {
  const stun = [...new Set(servers.map(({ urls }) => urls).filter((url) => !isTurn(url)))];
  if (stun.length === 0) return "Without a STUN server nothing can be said about the NAT.";
  return natFrom(await gather(stun.map((urls) => ({ urls })), "none"));
}

/** The same from what was gathered. */
export function natFrom({ candidates, answering }) {
  const hosts = candidates.filter(({ type }) => type === "host");
  const reflexive = candidates.filter(({ type, address }) => type === "srflx" && !address.includes(":"));
  if (reflexive.length === 0) {
    if (hosts.length === 0) return "This browser shows no candidates at all; an extension or a policy may forbid it.";
    return answering.length > 0
      ? "No other address than this machine's own was seen: there is no NAT on the way to this server."
      : "No STUN server answered: nothing can be said about the NAT, and UDP may be blocked.";
  }
  const seen = `Seen from outside as ${[...new Set(reflexive.map(({ address }) => address))].join(" and ")}.`;
  // Where the browser hides this machine's own addresses, their ports are all there is to compare.
  const isKept = reflexive.every(({ port }) => hosts.some((host) => host.protocol === "udp" && host.port === port));
  const between = isKept ? "Its port is this machine's own: there is no NAT in between, or one that keeps ports." : "There is a NAT.";
  const mappings = mappingsOf(reflexive, hosts);
  if (mappings === "many") {
    return `${seen} Each server saw another port: this looks like a symmetric NAT. Peers behind symmetric or port-restricted NATs will need the relay.`;
  }
  if (new Set(answering.map(hostOf)).size < 2) {
    return `${seen} ${between} With a second STUN server that answers, on another address or port, this page could tell whether it is a symmetric one.`;
  }
  return mappings === "one"
    ? `${seen} All servers saw the same port: the NAT keeps one mapping, and most peers can connect directly.`
    : `${seen} ${between} This machine has several addresses, and the browser does not say which was seen as which, so this page cannot tell whether it is a symmetric one.`;
}

/**
 * Whether any of this machine's addresses was seen as `one` or as `many` from outside; `unknown`
 * where the browser hides whose mapping it is. A mapping that several servers saw is listed once.
 */
function mappingsOf(reflexive, hosts) {
  const seen = new Map();
  for (const { base, address, port } of reflexive) {
    seen.set(base, (seen.get(base) ?? new Set()).add(`${address}:${port}`));
  }
  const hidden = seen.get(undefined)?.size ?? 0;
  seen.delete(undefined);
  const asking = hosts.filter(({ protocol, address }) => protocol === "udp" && !address.includes(":")).length;
  if ([...seen.values()].some(({ size }) => size > 1) || hidden > Math.max(asking, 1)) return "many";
  return hidden > 1 ? "unknown" : "one";
}
