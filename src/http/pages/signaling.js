// The way to the other browser before there is one: a socket to this server, kept alive.

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
/** Any code of a program's own tells the server that this is no leave. */
const WILL_BE_BACK = 4000;
/** After these errors trying again would bring the same answer. */
export const FATAL = ["room-unavailable", "unauthorized"];

/**
 * Joins a room and stays in it. Events: `welcome`, `peers`, `peer-joined`, `peer-left`, `error`,
 * `lost`, and whatever peers send; `detail` is the message.
 */
export class Signaling extends EventTarget {
  #room;
  #token;
  #socket;
  #identity = {};
  #retry = FIRST_RETRY_MS;
  #heartbeat;
  #closed = false;

  constructor(room, token) {
    super();
    this.#room = room;
    this.#token = token;
    this.#connect();
    addEventListener("online", () => this.#hurry());
  }

  /** Sends to one peer. While the socket is lost there is nobody to send through. */
  send(type, to, payload) {
    this.#write({ type, to, room: this.#room, payload });
  }

  leave() {
    this.#closed = true;
    this.#write({ type: "leave", room: this.#room });
    this.#socket.close();
    clearInterval(this.#heartbeat);
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.#socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.#socket.addEventListener("open", () => this.#join());
    this.#socket.addEventListener("message", ({ data }) => this.#hear(JSON.parse(data)));
    this.#socket.addEventListener("close", () => this.#reconnect());
  }

  /** With the same id and its secret the server takes this for the same peer. */
  #join() {
    const { id, secret } = this.#identity;
    const payload = { token: this.#token || undefined, secret };
    this.#write({ type: "join", from: id, room: this.#room, payload });
  }

  #hear(message) {
    if (message.type === "welcome") {
      const { id, secret, heartbeat } = message.payload;
      this.#identity = { id, secret };
      this.#retry = FIRST_RETRY_MS;
      clearInterval(this.#heartbeat);
      this.#heartbeat = setInterval(() => this.#write({ type: "ping" }), heartbeat * 500);
    }
    if (message.type === "error") this.#stumble(message.payload.code);
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #stumble(code) {
    if (FATAL.includes(code)) this.#closed = true;
    // Away for too long: the server no longer knows who this was.
    if (["id-taken", "id-forbidden"].includes(code)) {
      this.#identity = {};
      this.#join();
    }
  }

  #reconnect() {
    clearInterval(this.#heartbeat);
    if (this.#closed) return;
    this.dispatchEvent(new CustomEvent("lost"));
    setTimeout(() => this.#connect(), this.#retry);
    this.#retry = Math.min(this.#retry * 2, LAST_RETRY_MS);
  }

  /** After a change of networks the old socket may take minutes to notice. */
  #hurry() {
    this.#retry = FIRST_RETRY_MS;
    this.#socket.close(WILL_BE_BACK);
  }

  #write(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}
