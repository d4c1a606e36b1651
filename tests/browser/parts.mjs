// Parts of the pages by themselves, where what they have to bear happens too seldom in a real call.

import { open } from "./person.mjs";

/** The way to the server, with sockets that the test speaks through. */
export async function signaling() {
  const page = await open("/call");
  return page.evaluate(async () => {
    const sockets = [];
    window.WebSocket = class extends EventTarget {
      static OPEN = 1;
      readyState = 1;
      sent = [];
      constructor() {
        super();
        sockets.push(this);
        setTimeout(() => this.dispatchEvent(new Event("open")));
      }
      send(text) { this.sent.push(JSON.parse(text)); }
      close() {
        this.readyState = 3;
        setTimeout(() => this.dispatchEvent(new Event("close")));
      }
      hears(message) { this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(message) })); }
      types() { return this.sent.map(({ type }) => type); }
    };
    const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
    const until = async (holds) => { while (!holds()) await sleep(10); };
    const welcome = (resumed, heartbeat = 1000) =>
      ({ type: "welcome", payload: { id: "me", secret: "s", heartbeat, resumed } });
    const { Signaling } = await import("/assets/signaling.js");
    const outcome = {};

    let own = new Signaling("room", "");
    await until(() => sockets[0]?.sent.length === 1);
    sockets[0].hears(welcome(false));
    own.send("x", "a", 0);
    sockets[0].close();
    for (let number = 1; number <= 100; number += 1) own.send("x", "a", number);
    await until(() => sockets[1]?.sent.length === 1);
    outcome.early = sockets[1].types();
    sockets[1].hears(welcome(true));
    outcome.kept = sockets[1].sent.slice(1).map(({ payload }) => payload);
    sockets[1].close();
    own.send("x", "a", 101);
    await until(() => sockets[2]?.sent.length === 1);
    sockets[2].hears(welcome(false));
    own.send("x", "a", 102);
    outcome.forgotten = sockets[2].sent.slice(1).map(({ payload }) => payload);

    // Over and out while there is no socket, and again while there is one that is not welcomed.
    sockets[2].close();
    await sleep(0);
    own.leave("a");
    dispatchEvent(new Event("online"));
    await sleep(1000);
    outcome.afterLeaving = sockets.length;

    own = new Signaling("room", "");
    await until(() => sockets[3]?.sent.length === 1);
    sockets[3].hears(welcome(false, 0.2));
    await sleep(50);
    // Each ping is answered, and all is well.
    const answer = setInterval(() => sockets[3].hears({ type: "pong" }), 50);
    await sleep(1000);
    outcome.answered = sockets.length;
    clearInterval(answer);
    await until(() => sockets.length > 4);
    outcome.pings = sockets[3].types().includes("ping");
    await until(() => sockets[4].sent.length === 1);
    outcome.comesBackAs = sockets[4].sent[0];
    own.leave();
    outcome.left = sockets[4].types().at(-1);
    return outcome;
  });
}

/** Perfect negotiation, where an offer comes while an answer is being taken in. */
export async function negotiation() {
  const page = await open("/call");
  return page.evaluate(async () => {
    const calls = [];
    let taken;
    window.RTCPeerConnection = class extends EventTarget {
      signalingState = "stable";
      connectionState = "new";
      async setLocalDescription() {
        const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
        this.signalingState = type === "offer" ? "have-local-offer" : "stable";
        this.localDescription = { type, sdp: "ours" };
      }
      async setRemoteDescription({ type, sdp }) {
        calls.push(sdp);
        if (type === "answer") await new Promise((resolve) => { taken = resolve; });
        this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
      }
      async addIceCandidate({ candidate }) { calls.push(candidate); }
      restartIce() { calls.push("restart"); }
      addTrack() {}
    };
    const { Peer } = await import("/assets/peer.js");
    const sent = [];
    let connection;
    const construct = (polite) => {
      calls.length = 0;
      sent.length = 0;
      const own = window.RTCPeerConnection;
      window.RTCPeerConnection = class extends own { constructor() { super(); connection = this; } };
      const peer = new Peer({ polite, stream: { getTracks: () => [] }, send: (type, payload) => sent.push({ type, ...payload }) });
      window.RTCPeerConnection = own;
      return peer;
    };
    const settle = () => new Promise((resolve) => { setTimeout(resolve, 10); });
    const offer = async () => { connection.dispatchEvent(new Event("negotiationneeded")); await settle(); };
    const outcome = {};

    let peer = construct(false);
    await offer();
    const answering = peer.receive("answer", { type: "answer", sdp: "answer" });
    const offered = peer.receive("offer", { type: "offer", sdp: "offer" });
    await settle();
    taken();
    await Promise.all([answering, offered]);
    outcome.duringAnswer = [...calls];

    // Of somebody who says the names of connections and offers: what is for others is not taken.
    peer = construct(false);
    await offer();
    const { session } = sent[0];
    await peer.receive("answer", { type: "answer", sdp: "of an older offer", session: "a", of: session, offer: 0 });
    await peer.receive("answer", { type: "answer", sdp: "for another", session: "a", of: "b", offer: 1 });
    const accepted = peer.receive("answer", { type: "answer", sdp: "right", session: "a", of: session, offer: 1 });
    await settle();
    taken();
    await accepted;
    await peer.receive("candidate", { candidate: "of another", session: "c" });
    await peer.receive("candidate", { candidate: "right", session: "a" });
    outcome.taken = [...calls];
    outcome.another = [peer.isFromAnother({ session: "a" }), peer.isFromAnother({ session: "c" }), peer.isFromAnother(null)];

    // What may be lost is said again, and a way looked for.
    peer = construct(false);
    await offer();
    peer.recover();
    outcome.offeredAgain = sent.map(({ type, offer }) => [type, offer]);
    peer = construct(true);
    await peer.receive("offer", { type: "offer", sdp: "theirs", session: "a", offer: 7 });
    peer.recover();
    outcome.answeredAgain = sent.map(({ type, offer, of }) => [type, offer, of]);
    outcome.restarted = calls.includes("restart");

    // The polite side has the second word, unless there is no first one.
    peer = construct(true);
    await offer();
    outcome.waits = sent.length;
    while (sent.length === 0) await settle();
    outcome.speaks = [sent[0].type, peer.wouldTakeBack];
    return outcome;
  });
}

/** What is made of candidates, and of the servers that answered. */
export async function nat() {
  const page = await open("/test");
  return page.evaluate(async () => {
    const { natFrom } = await import("/assets/gather.js");
    const host = (address) => ({ type: "host", protocol: "udp", address, port: 9 });
    const seen = (port, base, address = "192.0.2.1") => ({ type: "srflx", protocol: "udp", address, port, base });
    const two = ["stun:a:3478", "stun:b:3478"];
    const cases = {
      "two addresses, each with a mapping": [[host("10.0.0.1"), host("10.1.0.1"), seen(1, "10.0.0.1:9"), seen(2, "10.1.0.1:9")], two],
      "two mappings of one address": [[host("10.0.0.1"), host("10.1.0.1"), seen(1, "10.0.0.1:9"), seen(2, "10.0.0.1:9")], two],
      "one mapping, one server answers": [[host("10.0.0.1"), seen(1, "10.0.0.1:9")], ["stun:a:3478"]],
      "one mapping, one server by two names": [[host("10.0.0.1"), seen(1, "10.0.0.1:9")], ["stun:a:3478", "stun:a:3478?transport=udp"]],
      "one mapping, two servers answer": [[host("10.0.0.1"), seen(1, "10.0.0.1:9")], two],
      "two hidden addresses": [[host("x.local"), host("y.local"), seen(1), seen(2)], two],
      "one hidden address": [[host("x.local"), seen(1), seen(2)], two],
      "one hidden address, its own port": [[host("x.local"), seen(9)], ["stun:a:3478"]],
      "nobody answers": [[host("10.0.0.1")], []],
      "no NAT": [[host("192.0.2.1")], two],
      "nothing at all": [[], []],
    };
    return Object.fromEntries(Object.entries(cases).map(([name, [candidates, answering]]) => [name, natFrom({ candidates, answering })]));
  });
}
