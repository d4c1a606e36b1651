import { at, copyOnClick, token } from "./dom.js";
import { isTurn, oneByOne, transportOf } from "./ice.js";
import { Peer } from "./peer.js";
import { FATAL, Signaling } from "./signaling.js";
import { Statistics } from "./statistics.js";

const STATISTICS_MS = 1000;
/** After a message did not reach the other side. */
const AGAIN_MS = 2000;
const FACTS = ["way", "receiving", "sending", "round-trip", "frames"];

let call;

/** One call, from joining the room to hanging up: with one person, whoever else may come. */
class Call {
  #signaling;
  #stream;
  #iceServers = [];
  /** Who else is in the room, by id, and whether this side is polite to them. */
  #others = new Map();
  /** Those of them who talk to somebody else. */
  #busy = new Set();
  #peer;
  #peerId;
  #statistics;
  #timer;
  #again;
  #isCutOff = false;
  #alone = "Waiting for the other person…";

  constructor(room, stream) {
    this.#stream = stream;
    at("local").srcObject = stream;
    this.#signaling = new Signaling(room, token.get());
    const on = (type, act) => this.#signaling.addEventListener(type, ({ detail }) => act(detail));
    on("welcome", ({ payload }) => this.#welcomed(payload));
    on("ice-servers", ({ payload }) => this.#takeServers(payload.iceServers));
    on("peers", ({ payload }) => this.#met(payload));
    on("peer-joined", ({ payload }) => this.#joined(payload));
    on("peer-left", ({ payload }) => this.#left(payload.id));
    for (const type of ["offer", "answer", "candidate"]) on(type, (message) => this.#received(message));
    on("busy", ({ from }) => this.#isRefusedBy(from));
    on("leave", ({ from }) => this.#hungUp(from));
    on("error", ({ payload }) => this.#refused(payload));
    on("lost", () => { if (this.#peer?.state !== "connected") say("Looking for the server…"); });
    this.#timer = setInterval(() => this.#showStatistics(), STATISTICS_MS);
    say(this.#alone);
  }

  hangUp() {
    clearInterval(this.#timer);
    this.#signaling.leave(this.#peerId);
    this.#drop();
    for (const track of this.#stream.getTracks()) track.stop();
    at("local").srcObject = null;
  }

  /** Turns a kind of track off or on; returns whether it is off. */
  toggle(kind) {
    const tracks = this.#stream.getTracks().filter((track) => track.kind === kind);
    for (const track of tracks) track.enabled = !track.enabled;
    return tracks.some((track) => !track.enabled);
  }

  /** Goes by the options as they are now. Browsers stay on a way that they may no longer gather, as
   * long as it works: only a new connection is sure to leave it. */
  reconfigure() {
    if (!this.#peer) return;
    if (this.#peer.isReplaceable) return this.#dial(this.#peerId);
    this.#peer.reconfigure(this.#configuration());
    this.#peer.restart();
  }

  #welcomed({ iceServers, resumed }) {
    // What was under way with a server that has forgotten it comes to nothing.
    if (!resumed && this.#peer?.state !== "connected") this.#drop();
    this.#takeServers(iceServers);
  }

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
    this.#others = new Map(peers.map(({ id, polite }) => [id, polite]));
    this.#busy.clear();
    const isKnown = this.#others.has(this.#peerId);
    if (isKnown) this.#peer.recover();
    else if (this.#peer?.state !== "connected") this.#drop();
    if (!this.#peer) return this.#meetNext();
    at("share").hidden = true;
    this.#show(this.#peer.state);
  }

  /** A newcomer, or somebody who is back after the server had forgotten everybody. */
  #joined({ id, polite }) {
    this.#others.set(id, polite);
    this.#busy.delete(id);
    if (id === this.#peerId && this.#peer.state === "connected") this.#peer.recover();
    else if (id === this.#peerId || !this.#isTaken()) this.#dial(id);
  }

  /** Whether there is somebody to talk to, not just the place of somebody whose browser has gone. */
  #isTaken() {
    if (!this.#peer) return false;
    const { state, isHeard } = this.#peer;
    return state === "connected" || (isHeard && ["new", "connecting"].includes(state));
  }

  #dial(id) {
    if (this.#peerId !== id && this.#others.has(this.#peerId)) this.#signaling.send("busy", this.#peerId);
    this.#drop();
    this.#peerId = id;
    this.#statistics = new Statistics();
    const peer = new Peer({
      configuration: this.#configuration(),
      polite: this.#others.get(id),
      stream: this.#stream,
      send: (type, payload) => this.#signaling.send(type, id, payload),
    });
    peer.addEventListener("stream", ({ detail }) => { at("remote").srcObject = detail; });
    peer.addEventListener("state", ({ detail }) => { if (peer === this.#peer) this.#changed(detail); });
    this.#peer = peer;
    this.#alone = "Waiting for the other person…";
    at("share").hidden = true;
    complain("");
    say("Connecting…");
  }

  #drop() {
    clearTimeout(this.#again);
    this.#again = undefined;
    this.#peer?.close();
    this.#peer = undefined;
    this.#peerId = undefined;
    at("remote").srcObject = null;
    delete document.body.dataset.state;
    for (const id of FACTS) at(id).textContent = "–";
  }

  /** Calls whoever is free; where nobody is, says so. */
  #meetNext() {
    const next = [...this.#others.keys()].find((id) => !this.#busy.has(id));
    if (next !== undefined) return this.#dial(next);
    const isFull = this.#others.size > 0;
    at("share").hidden = isFull;
    say(isFull ? "Two others are in this call already. You are next when one of them leaves." : this.#alone);
  }

  /** Out of the room, which may be for a moment: a call that stands does not need the server. */
  #left(id) {
    this.#others.delete(id);
    this.#busy.clear();
    if (id === this.#peerId && this.#peer.state !== "connected") return this.#hungUp(id);
    if (!this.#peer) this.#meetNext();
  }

  /** The other side has ended the call. */
  #hungUp(id) {
    this.#others.delete(id);
    if (id !== this.#peerId) return;
    this.#drop();
    this.#alone = "The other person has left.";
    this.#meetNext();
  }

  #isRefusedBy(id) {
    this.#busy.add(id);
    if (id !== this.#peerId || this.#peer.state === "connected") return;
    this.#drop();
    this.#meetNext();
  }

  async #received({ type, from, payload }) {
    if (from !== this.#peerId) {
      if (type !== "offer" || !this.#others.has(from)) return;
      if (this.#isTaken()) return this.#signaling.send("busy", from);
      this.#dial(from);
    } else if (type === "offer" && (this.#peer.isFromAnother(payload) || this.#peer.wouldTakeBack)) {
      this.#dial(from);
    }
    const peer = this.#peer;
    try {
      await peer.receive(type, payload);
    } catch (error) {
      if (peer === this.#peer) complain(`What the other side sent makes no sense: ${error.message}`);
    }
  }

  #changed(state) {
    const isAlone = this.#isCutOff || !this.#others.has(this.#peerId);
    if (state !== "failed" || !isAlone) return this.#show(state);
    // There is no way left, and nobody to look for another one with.
    if (this.#isCutOff) return stop();
    this.#hungUp(this.#peerId);
  }

  #show(state) {
    const words = {
      new: "Connecting…",
      connecting: "Connecting…",
      connected: "Connected.",
      disconnected: "The connection is interrupted…",
      failed: "Looking for another way…",
    };
    document.body.dataset.state = state;
    say(words[state] ?? "");
  }

  #refused({ code, message, target }) {
    if (code === "peer-offline") return this.#notReached(target);
    // This side was away for too long, and joins anew.
    if (["id-taken", "id-forbidden"].includes(code)) return;
    complain(message);
    if (!FATAL.includes(code)) return;
    this.#isCutOff = true;
    if (this.#peer?.state === "connected") complain(`${message}. The call goes on as long as its connection holds.`);
    else stop();
    if (code !== "unauthorized") return;
    at("ask").hidden = false;
    at("token").focus();
  }

  /** The other side may be back in a moment; or it has gone, and somebody else has come. */
  #notReached(id) {
    if (id !== this.#peerId || this.#again) return;
    const another = [...this.#others.keys()].find((other) => other !== id && !this.#busy.has(other));
    if (another !== undefined && !this.#isTaken()) return this.#dial(another);
    this.#again = setTimeout(() => {
      this.#again = undefined;
      this.#peer.recover();
    }, AGAIN_MS);
  }

  async #showStatistics() {
    const peer = this.#peer;
    const reports = await peer?.stats();
    if (!reports || peer !== this.#peer) return;
    const facts = this.#statistics.read(reports);
    at("way").textContent = facts.way;
    at("receiving").textContent = facts.receiving;
    at("sending").textContent = facts.sending;
    at("round-trip").textContent = facts.roundTrip;
    at("frames").textContent = facts.frames;
  }
}

function say(text) { at("said").textContent = text; }

function complain(text) { at("problem").textContent = text; }

/** Where there is no camera a call can still be heard, and without a microphone seen. */
async function openMedia() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give out camera and microphone only over https, or on localhost.");
  }
  for (const wanted of [{ audio: true, video: true }, { audio: true }, { video: true }]) {
    try {
      return await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
      if (error.name === "NotAllowedError") throw new Error("Without leave to use camera and microphone there is no call.");
      if (error.name !== "NotFoundError") throw error;
    }
  }
  throw new Error("There is neither a camera nor a microphone here.");
}

/** Long enough that nobody guesses it: who knows the name is in. */
function newRoom() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const hasRoom = () => location.hash.length > 1;

async function start() {
  complain("");
  if (at("token").value) token.set(at("token").value);
  const stream = await openMedia();
  if (!hasRoom()) history.replaceState(null, "", `#${newRoom()}`);
  // Nothing else of the address is for others to know.
  at("link").value = location.origin + location.pathname + location.hash;
  for (const [id, tracks] of [["mute", stream.getAudioTracks()], ["blind", stream.getVideoTracks()]]) {
    at(id).setAttribute("aria-pressed", "false");
    at(id).hidden = tracks.length === 0;
  }
  at("local").hidden = stream.getVideoTracks().length === 0;
  at("title").textContent = "Your call";
  at("start").hidden = true;
  at("meeting").hidden = false;
  at("share").hidden = true;
  at("meeting").focus();
  call = new Call(location.hash.slice(1), stream);
}

function stop() {
  if (!call) return;
  call.hangUp();
  call = undefined;
  say("");
  at("meeting").hidden = true;
  at("start").hidden = false;
  at("enter").textContent = "Join again";
  at("enter").focus();
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
// Another invitation, opened in the same tab.
addEventListener("hashchange", () => location.reload());
copyOnClick(at("copy"), at("link"));

if (hasRoom()) {
  at("title").textContent = "You are invited to a call";
  at("invitation").textContent = "Camera and microphone go from browser to browser; this server only introduces you, and relays where it must.";
  at("enter").textContent = "Join the call";
}
