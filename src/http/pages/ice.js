// What the pages know about ICE servers: where to get them, and what their failures mean.

/** Fetches fresh ICE servers with credentials. Throws an Error with `status` where refused. */
export async function fetchIceServers(token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch("/ice-servers", { headers, cache: "no-store" });
  if (!response.ok) {
    const error = new Error(await refusal(response));
    error.status = response.status;
    throw error;
  }
  return response.json();
}

async function refusal(response) {
  switch (response.status) {
    case 401:
    case 403:
      return "This server gives out credentials only to those who show a token.";
    case 404:
      return "This server gives out no credentials: signaling is off in its configuration.";
    case 429:
      return "Too many credentials were asked for; try again in a minute.";
    default:
      return `The server answered ${response.status}: ${(await response.text()).slice(0, 200)}`;
  }
}

/** One ICE server entry for each URL, so that each can be looked at by itself. */
export function oneByOne(iceServers) {
  return iceServers.flatMap(({ urls, ...credential }) =>
    [urls].flat().map((url) => ({ urls: url, ...credential })));
}

/** `udp`, `tcp` or `tls`: how a client reaches this URL. */
export function transportOf(url) {
  if (url.startsWith("turns:") || url.startsWith("stuns:")) return "tls";
  return /[?&]transport=tcp\b/.test(url) ? "tcp" : "udp";
}

export const isTurn = (url) => url.startsWith("turn:") || url.startsWith("turns:");

/** What an `icecandidateerror` says, in words somebody can act on. */
export function causeOf({ errorCode, errorText, url }) {
  const said = errorText ? ` (${errorText})` : "";
  switch (errorCode) {
    case 400:
      return `400: the server could not make sense of the request${said}.`;
    case 401:
      return "401: wrong username or password. Time-limited credentials may have expired, or the secret of the web application is not the server's.";
    case 403:
      return "403: the server forbids what was asked, most likely relaying to this peer.";
    case 437:
      return "437: the server no longer knows this allocation; it may have been restarted.";
    case 438:
      return "438: the nonce was refused again and again. Requests may reach different servers that do not share a nonce secret.";
    case 440:
      return "440: the server relays no addresses of this family (IPv4 or IPv6).";
    case 441:
      return "441: the allocation belongs to another user.";
    case 442:
      return "442: the server does not relay this transport.";
    case 486:
      return "486: this user holds as many allocations as it may.";
    case 508:
      return "508: the server has no relay port left, or cannot bind one.";
    case 701:
      return `701: no answer from ${hostOf(url)}${unreachable(url)}${said}.`;
    default:
      return `${errorCode}${said}.`;
  }
}

/** Host and port of a URL, as they stand there. */
export const hostOf = (url) => (url ?? "the server").replace(/^\w+:/, "").replace(/\?.*/, "");

function unreachable(url) {
  switch (url && transportOf(url)) {
    case "tls":
      return ": it is down, the port is closed on the way, or the browser does not trust its certificate";
    case "tcp":
      return ": it is down, or TCP to this port is closed on the way";
    default:
      return ": it is down, or UDP to this port is closed on the way";
  }
}
