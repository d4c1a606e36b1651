// The way to the other browser before there is one: a socket to this server, kept alive.

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
/** A socket that has not been welcomed by then is tried anew. */
const WELCOME_MS = 15_000;
/** Any code of a program's own tells the server that this is no leave. */
const WILL_BE_BACK = 4000;
/** So many pings without a word from the server, and the socket is taken for dead. */
const SILENT_PINGS = 2;
/** Messages that wait for the socket. Beyond it the oldest go: they are said again, see `Peer.recover`. */
const WAITING_MAX = 64;
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
  #isWelcome = false;
  #waiting = [];
  #retry = FIRST_RETRY_MS;
  #timer;
  #heartbeat;
  #silentPings = 0;
  #over = new AbortController();

  constructor(room, token) {
    super();
    this.#room = room;
    this.#token = token;
    addEventListener("online", () => this.#hurry(), { signal: this.#over.signal });
    this.#connect();
  }

  /** Sends to one peer. While the socket is lost, messages wait. */
  send(type, to, payload) {
    const message = { type, to, room: this.#room, payload };
    if (this.#isWelcome && this.#socket.readyState === WebSocket.OPEN) return this.#write(message);
    this.#waiting.push(message);
    if (this.#waiting.length > WAITING_MAX) this.#waiting.shift();
  }

  /** Leaves for good, and tells `to`, if there is one, that this was on purpose. */
  leave(to) {
    this.#write({ type: "leave", to, room: this.#room });
    this.#end();
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.#socket = socket;
    // What a socket says that was given up is not heard.
    const on = (type, act) => socket.addEventListener(type, (event) => {
      if (socket === this.#socket) act(event);
    });
    on("open", () => this.#join());
    on("message", ({ data }) => this.#hear(JSON.parse(data)));
    on("close", () => this.#lose());
    this.#timer = setTimeout(() => this.#hurry(), WELCOME_MS);
  }

  /** With the same id and its secret the server takes this for the same peer. */
  #join() {
    const { id, secret } = this.#identity;
    const payload = { token: this.#token || undefined, secret };
    this.#write({ type: "join", from: id, room: this.#room, payload });
  }

  #hear(message) {
    this.#silentPings = 0;
    if (message.type === "welcome") this.#settle(message.payload);
    if (message.type === "error") this.#stumble(message.payload.code);
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #settle({ id, secret, heartbeat, resumed }) {
    this.#identity = { id, secret };
    this.#isWelcome = true;
    this.#retry = FIRST_RETRY_MS;
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeat);
    this.#heartbeat = setInterval(() => this.#beat(), heartbeat * 500);
    // To a server that knows nobody yet they would be said in vain.
    const waiting = this.#waiting.splice(0);
    if (resumed) waiting.forEach((message) => this.#write(message));
  }

  #stumble(code) {
    if (FATAL.includes(code)) this.#end();
    // Away for too long: the server no longer knows who this was.
    if (["id-taken", "id-forbidden"].includes(code)) {
      this.#identity = {};
      this.#join();
    }
  }

  /** Nothing may arrive over a way that is gone, and no browser says so for minutes. */
  #beat() {
    if (this.#silentPings >= SILENT_PINGS) return this.#hurry();
    this.#silentPings += 1;
    this.#write({ type: "ping" });
  }

  #lose() {
    this.#forget();
    this.dispatchEvent(new CustomEvent("lost"));
    this.#timer = setTimeout(() => this.#connect(), this.#retry);
    this.#retry = Math.min(this.#retry * 2, LAST_RETRY_MS);
  }

  /** As after a change of networks: the old socket is as good as lost. */
  #hurry() {
    const old = this.#socket;
    this.#retry = FIRST_RETRY_MS;
    this.#lose();
    old?.close(WILL_BE_BACK);
  }

  #forget() {
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeat);
    this.#silentPings = 0;
    this.#isWelcome = false;
    this.#socket = undefined;
  }

  #end() {
    const socket = this.#socket;
    this.#over.abort();
    this.#forget();
    socket?.close();
  }

  #write(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}
