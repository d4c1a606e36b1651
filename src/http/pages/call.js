import { at, copyOnClick, token } from "./dom.js";
import { isTurn, oneByOne, transportOf } from "./ice.js";
import { Peer } from "./peer.js";
import { FATAL, Signaling } from "./signaling.js";
import { Statistics } from "./statistics.js";

const STATISTICS_MS = 1000;

const isInvited = location.hash.length > 1;
let call;

/** One call, from joining the room to hanging up. */
class Call {
  #signaling;
  #stream;
  #iceServers = [];
  #peer;
  #peerId;
  #statistics;
  #timer;

  constructor(room, stream) {
    this.#stream = stream;
    at("local").srcObject = stream;
    this.#signaling = new Signaling(room, token.get());
    const on = (type, act) => this.#signaling.addEventListener(type, ({ detail }) => act(detail));
    on("welcome", ({ payload }) => this.#takeServers(payload.iceServers));
    on("ice-servers", ({ payload }) => this.#takeServers(payload.iceServers));
    on("peers", ({ payload }) => this.#met(payload));
    on("peer-joined", ({ payload }) => this.#joined(payload));
    on("peer-left", ({ payload }) => this.#left(payload.id));
    for (const type of ["offer", "answer", "candidate"]) on(type, (message) => this.#received(message));
    on("error", ({ payload }) => this.#refused(payload));
    on("lost", () => say(this.#peer?.state === "connected" ? "" : "Looking for the server…"));
    this.#timer = setInterval(() => this.#showStatistics(), STATISTICS_MS);
    say("Waiting for the other person…");
  }

  hangUp() {
    clearInterval(this.#timer);
    this.#signaling.leave();
    this.#peer?.close();
    for (const track of this.#stream.getTracks()) track.stop();
    at("remote").srcObject = null;
    at("local").srcObject = null;
  }

  /** Turns a kind of track off or on; returns whether it is off. */
  toggle(kind) {
    const tracks = this.#stream.getTracks().filter((track) => track.kind === kind);
    for (const track of tracks) track.enabled = !track.enabled;
    return tracks.some((track) => !track.enabled);
  }

  reconfigure() { this.#peer?.reconfigure(this.#configuration(), { restart: true }); }

  #takeServers(iceServers) {
    if (!iceServers) return;
    this.#iceServers = iceServers;
    this.#peer?.reconfigure(this.#configuration());
  }

  #configuration() {
    const transport = at("transport").value;
    const iceServers = oneByOne(this.#iceServers).filter(({ urls }) =>
      !isTurn(urls) || transport === "any" || transportOf(urls) === transport);
    return { iceServers, iceTransportPolicy: at("relay-only").checked ? "relay" : "all" };
  }

  /** Who is in the room already. After a lost socket this may be whom we talk with. */
  #met({ peers }) {
    const old = peers.find(({ id }) => id === this.#peerId);
    if (old) return this.#peer.restartUnlessConnected();
    if (peers.length > 0) this.#joined(peers[0]);
  }

  #joined({ id, polite }) {
    if (id === this.#peerId) return;
    this.#peer?.close();
    this.#peerId = id;
    this.#statistics = new Statistics();
    this.#peer = new Peer({
      configuration: this.#configuration(),
      polite,
      stream: this.#stream,
      send: (type, payload) => this.#signaling.send(type, id, payload),
    });
    this.#peer.addEventListener("stream", ({ detail }) => { at("remote").srcObject = detail; });
    this.#peer.addEventListener("state", ({ detail }) => this.#changed(detail));
    at("share").hidden = true;
    say("Connecting…");
  }

  #left(id) {
    if (id !== this.#peerId) return;
    this.#peer.close();
    this.#peer = undefined;
    this.#peerId = undefined;
    at("remote").srcObject = null;
    say("The other person has left.");
  }

  async #received({ type, from, payload }) {
    if (from !== this.#peerId) return;
    try {
      await this.#peer.receive(type, payload);
    } catch (error) {
      complain(`What the other side sent makes no sense: ${error.message}`);
    }
  }

  #changed(state) {
    const words = { connecting: "Connecting…", connected: "", disconnected: "The connection is interrupted…", failed: "Looking for another way…" };
    document.body.dataset.state = state;
    say(words[state] ?? "");
  }

  #refused({ code, message }) {
    // The other side has gone, and `peer-left` says so; or this one was away, and joins anew.
    if (["peer-offline", "id-taken", "id-forbidden"].includes(code)) return;
    complain(message);
    if (FATAL.includes(code)) stop();
    if (code === "unauthorized") {
      at("ask").hidden = false;
      at("token").focus();
    }
  }

  async #showStatistics() {
    if (!this.#peer) return;
    const facts = this.#statistics.read(await this.#peer.stats());
    at("way").textContent = facts.way;
    at("receiving").textContent = facts.receiving;
    at("sending").textContent = facts.sending;
    at("round-trip").textContent = facts.roundTrip;
    at("frames").textContent = facts.frames;
  }
}

function say(text) {
  at("said").textContent = text;
  at("said").hidden = text === "";
}

function complain(text) {
  at("problem").textContent = text;
  at("problem").hidden = text === "";
}

/** Where there is no camera a call can still be heard. */
async function openMedia() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give out camera and microphone only over https, or on localhost.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  } catch (error) {
    if (error.name === "NotFoundError") return navigator.mediaDevices.getUserMedia({ audio: true });
    if (error.name === "NotAllowedError") throw new Error("Without leave to use camera and microphone there is no call.");
    throw error;
  }
}

/** Long enough that nobody guesses it: who knows the name is in. */
function newRoom() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function start() {
  complain("");
  if (at("token").value) token.set(at("token").value);
  const stream = await openMedia();
  if (!isInvited) history.replaceState(null, "", `#${newRoom()}`);
  at("link").value = location.href;
  at("start").hidden = true;
  at("meeting").hidden = false;
  at("share").hidden = isInvited;
  call = new Call(location.hash.slice(1), stream);
}

function stop() {
  call?.hangUp();
  call = undefined;
  at("meeting").hidden = true;
  at("start").hidden = false;
  at("enter").textContent = location.hash ? "Join again" : "Start a call";
  delete document.body.dataset.state;
}

function toggle(button, kind) {
  button.setAttribute("aria-pressed", String(call.toggle(kind)));
}

at("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("enter").disabled = true;
  try {
    await start();
  } catch (error) {
    complain(error.message);
  }
  at("enter").disabled = false;
});
at("options").addEventListener("change", () => call?.reconfigure());
at("mute").addEventListener("click", () => toggle(at("mute"), "audio"));
at("blind").addEventListener("click", () => toggle(at("blind"), "video"));
at("hang-up").addEventListener("click", stop);
addEventListener("pagehide", stop);
copyOnClick(at("copy"), at("link"));

if (isInvited) {
  at("title").textContent = "You are invited to a call";
  at("invitation").textContent = "Camera and microphone go from browser to browser; this server only introduces you, and relays where it must.";
  at("enter").textContent = "Join the call";
}
