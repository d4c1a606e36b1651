// The connection to one peer, by perfect negotiation: whoever is polite gives way when both offer
// at once, so neither side needs to know who called.

export class Peer extends EventTarget {
  #connection;
  #send;
  #polite;
  #making = false;
  #ignoring = false;

  /** `send(type, payload)` takes a message to the peer. */
  constructor({ configuration, polite, stream, send }) {
    super();
    this.#send = send;
    this.#polite = polite;
    this.#connection = new RTCPeerConnection(configuration);
    const connection = this.#connection;
    connection.addEventListener("negotiationneeded", () => this.#offer());
    connection.addEventListener("icecandidate", ({ candidate }) => send("candidate", candidate));
    connection.addEventListener("track", ({ streams }) => this.#tell("stream", streams[0]));
    connection.addEventListener("connectionstatechange", () => this.#changed());
    for (const track of stream.getTracks()) connection.addTrack(track, stream);
  }

  /** A message from the peer. */
  async receive(type, payload) {
    if (type === "candidate") return this.#addCandidate(payload);
    const collides = type === "offer" && (this.#making || this.#connection.signalingState !== "stable");
    this.#ignoring = collides && !this.#polite;
    if (this.#ignoring) return;
    await this.#connection.setRemoteDescription(payload);
    if (type !== "offer") return;
    await this.#connection.setLocalDescription();
    this.#send("answer", this.#connection.localDescription);
  }

  /** Servers and policy for the next gathering of candidates, which begins at once if asked to. */
  reconfigure(configuration, { restart = false } = {}) {
    this.#connection.setConfiguration(configuration);
    if (restart) this.#connection.restartIce();
  }

  /** Looks for another way, as after the socket was lost and messages with it. */
  restartUnlessConnected() {
    if (this.#connection.connectionState !== "connected") this.#connection.restartIce();
  }

  get state() { return this.#connection.connectionState; }

  stats() { return this.#connection.getStats(); }

  close() { this.#connection.close(); }

  async #offer() {
    try {
      this.#making = true;
      await this.#connection.setLocalDescription();
      this.#send("offer", this.#connection.localDescription);
    } finally {
      this.#making = false;
    }
  }

  async #addCandidate(candidate) {
    try {
      await this.#connection.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      // Candidates of an offer that was ignored have nowhere to go.
      if (!this.#ignoring) throw error;
    }
  }

  #changed() {
    if (this.#connection.connectionState === "failed") this.#connection.restartIce();
    this.#tell("state", this.#connection.connectionState);
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}
