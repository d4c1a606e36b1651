import { at, bitrate, copyOnClick, token } from "./dom.js";
import { fetchIceServers } from "./ice.js";

const INTERVAL_MS = 2000;
const SAMPLES = 60;
const WIDTH = 600;
const HEIGHT = 160;

async function showHealth() {
  const [text, style] = await health();
  at("health").textContent = text;
  at("health").className = `status ${style}`;
}

async function health() {
  try {
    if (!(await fetch("/healthz", { cache: "no-store" })).ok) return ["not well: a part of it does not answer.", "bad"];
    const ready = (await fetch("/readyz", { cache: "no-store" })).ok;
    return ready ? ["well.", "good"] : ["well, and takes no new clients: it is about to stop.", "wait"];
  } catch {
    return ["not reachable.", "bad"];
  }
}

async function showIceServers() {
  try {
    const { iceServers, ttl } = await fetchIceServers(token.get());
    const inOrder = iceServers.map(({ urls, username, credential }) => ({ urls, username, credential }));
    at("snippet").textContent =
      `const connection = new RTCPeerConnection({\n  iceServers: ${indent(JSON.stringify(inOrder, null, 2))},\n});`;
    at("ttl").textContent = ttl ? `The credentials are good for ${minutes(ttl)}.` : "";
    at("ice").hidden = false;
    at("ask").hidden = true;
    at("ice-problem").hidden = true;
  } catch (error) {
    at("ice-problem").textContent = error.message;
    at("ice-problem").hidden = false;
    at("ask").hidden = ![401, 403].includes(error.status);
  }
}

const indent = (json) => json.replaceAll("\n", "\n  ");

const minutes = (seconds) => seconds >= 120 ? `${Math.round(seconds / 60)} minutes` : `${seconds} seconds`;

/** Bytes relayed so far in each direction, and live allocations, from the metrics' text. */
function readMetrics(text) {
  const sum = (name, label = "") => text.split("\n")
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(label))
    .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
  return {
    toPeer: sum("hairpin_relay_bytes_total", 'direction="to_peer"'),
    toClient: sum("hairpin_relay_bytes_total", 'direction="to_client"'),
    allocations: sum("hairpin_allocations"),
  };
}

const samples = [];
let before;

/** Takes a sample; says whether it is worth going on. */
async function sampleBandwidth() {
  let metrics;
  try {
    const response = await fetch("/metrics", { cache: "no-store" });
    if (response.status === 404) {
      at("live-problem").textContent = "Figures are shown where the operator listens for HTTP, not on this public port.";
      return false;
    }
    if (!response.ok) throw new Error(`The server answered ${response.status}`);
    metrics = readMetrics(await response.text());
  } catch {
    at("live-problem").textContent = "The server does not answer.";
    at("live-problem").hidden = false;
    before = undefined;
    return true;
  }
  const now = performance.now();
  if (before) {
    const seconds = (now - before.now) / 1000;
    const rate = (key) => Math.max(0, (metrics[key] - before.metrics[key]) * 8 / seconds);
    samples.push({ toPeer: rate("toPeer"), toClient: rate("toClient") });
    if (samples.length > SAMPLES) samples.shift();
    showBandwidth(metrics.allocations);
  }
  before = { now, metrics };
  return true;
}

function showBandwidth(allocations) {
  const last = samples.at(-1);
  const peak = Math.max(1000, ...samples.flatMap(({ toPeer, toClient }) => [toPeer, toClient]));
  const points = (key) => samples.map((sample, index) => {
    const x = WIDTH - (samples.length - 1 - index) * WIDTH / (SAMPLES - 1);
    return `${x.toFixed(1)},${(HEIGHT - 2 - sample[key] / peak * (HEIGHT - 6)).toFixed(1)}`;
  }).join(" ");
  at("chart").querySelector(".to-peer").setAttribute("points", points("toPeer"));
  at("chart").querySelector(".to-client").setAttribute("points", points("toClient"));
  at("to-peer").textContent = bitrate(last.toPeer);
  at("to-client").textContent = bitrate(last.toClient);
  at("allocations").textContent = allocations === 1 ? "1 allocation" : `${allocations} allocations`;
  at("peak").textContent = bitrate(peak);
  at("live").hidden = false;
  at("live-problem").hidden = true;
}

async function watchBandwidth() {
  // A page nobody looks at asks for nothing.
  if (document.hidden || await sampleBandwidth()) setTimeout(watchBandwidth, INTERVAL_MS);
}

copyOnClick(at("copy"), at("snippet"));
at("renew").addEventListener("click", showIceServers);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(at("token").value);
  showIceServers();
});
setInterval(showHealth, 10_000);
showHealth();
showIceServers();
watchBandwidth();
