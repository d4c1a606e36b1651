// The connection to one peer, by perfect negotiation: whoever is polite gives way when both offer
// at once, so neither side needs to know who called.
//
// Messages get lost with a socket, and are said again. So that neither side takes an old one for a
// new one, a description or candidate names the connection it is from (`session`) and, once it is
// known, the one it is for (`of`), and an answer which offer it answers (`offer`). Where somebody
// else's page names none of them, all are taken as they come.

/** So long the polite side leaves the first word to the other one: offers that cross cost time. */
const FIRST_WORD_MS = 2000;

/** One connection. Events: `stream`, `state`. */
export class Peer extends EventTarget {
  #connection;
  #send;
  #polite;
  #making = false;
  #ignoring = false;
  #settingAnswer = false;
  #session = crypto.getRandomValues(new Uint32Array(2)).join("-");
  #other;
  #offers = 0;
  #answered;
  #isHeard = false;

  /** `send(type, payload)` takes a message to the peer. */
  constructor({ configuration, polite, stream, send }) {
    super();
    this.#send = send;
    this.#polite = polite;
    this.#connection = new RTCPeerConnection(configuration);
    const connection = this.#connection;
    connection.addEventListener("negotiationneeded", () => {
      if (!polite || this.#isHeard) return this.#offer();
      setTimeout(() => { if (!this.#isHeard && this.state !== "closed") this.#offer(); }, FIRST_WORD_MS);
    });
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate) send("candidate", this.#named(candidate.toJSON()));
    });
    connection.addEventListener("track", ({ streams }) => this.#tell("stream", streams[0]));
    connection.addEventListener("connectionstatechange", () => this.#changed());
    for (const track of stream.getTracks()) connection.addTrack(track, stream);
  }

  /** Whether an offer is from another connection than the one this one has to do with. */
  isFromAnother(payload) {
    return this.#other !== undefined && payload?.session !== undefined && payload.session !== this.#other;
  }

  /**
   * Whether an offer by now would make this side take back its own first one. Chromium may gather no
   * candidates after that, for good, so a new connection had better take the offer.
   */
  get wouldTakeBack() {
    const { remoteDescription, signalingState } = this.#connection;
    return this.#polite && !remoteDescription && (this.#making || signalingState === "have-local-offer");
  }

  /** A message from the peer. */
  async receive(type, payload) {
    this.#isHeard = true;
    if (payload?.of !== undefined && payload.of !== this.#session) return;
    if (this.isFromAnother(payload)) return;
    if (type === "candidate") return this.#addCandidate(payload);
    if (type === "answer" && !this.#isAwaited(payload)) return;
    const isStable = this.#connection.signalingState === "stable" || this.#settingAnswer;
    const collides = type === "offer" && (this.#making || !isStable);
    this.#ignoring = collides && !this.#polite;
    if (this.#ignoring) return;
    this.#other = payload?.session;
    this.#settingAnswer = type === "answer";
    try {
      await this.#connection.setRemoteDescription(payload);
    } finally {
      this.#settingAnswer = false;
    }
    if (type !== "offer") return;
    this.#answered = payload.offer;
    await this.#connection.setLocalDescription();
    this.#describe();
  }

  /** Servers and policy for the next gathering of candidates. */
  reconfigure(configuration) { this.#connection.setConfiguration(configuration); }

  /** Gathers candidates anew, and looks for another way with them. */
  restart() { this.#connection.restartIce(); }

  /** After messages may have been lost: says again what counts, and looks for a way if there is none. */
  recover() {
    const { signalingState, localDescription, connectionState } = this.#connection;
    if (signalingState === "have-local-offer" || localDescription?.type === "answer") this.#describe();
    if (signalingState === "stable" && connectionState !== "connected") this.#connection.restartIce();
  }

  get state() { return this.#connection.connectionState; }

  /** Whether the other side can tell a new connection from this one, or has none of this one yet. */
  get isReplaceable() { return this.#other !== undefined || !this.#isHeard; }

  /** Whether the other side has said anything to this connection. */
  get isHeard() { return this.#isHeard; }

  stats() { return this.#connection.getStats(); }

  close() { this.#connection.close(); }

  async #offer() {
    try {
      this.#making = true;
      await this.#connection.setLocalDescription();
      this.#offers += 1;
      this.#describe();
    } finally {
      this.#making = false;
    }
  }

  /** Sends the description of this side. */
  #describe() {
    const { type, sdp } = this.#connection.localDescription;
    const offer = type === "offer" ? this.#offers : this.#answered;
    this.#send(type, this.#named({ type, sdp, offer }));
  }

  #named(payload) { return { ...payload, session: this.#session, of: this.#other }; }

  #isAwaited(answer) {
    const isOurs = answer?.offer === undefined || answer.offer === this.#offers;
    return this.#connection.signalingState === "have-local-offer" && !this.#settingAnswer && isOurs;
  }

  async #addCandidate(candidate) {
    try {
      await this.#connection.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      // Candidates of an offer that was ignored, or lost, have nowhere to go. A lost one comes again,
      // with its candidates.
      if (!this.#ignoring && this.#connection.remoteDescription) throw error;
    }
  }

  #changed() {
    if (this.#connection.connectionState === "failed") this.#connection.restartIce();
    this.#tell("state", this.#connection.connectionState);
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
