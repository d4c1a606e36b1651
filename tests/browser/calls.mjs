// Calls between two, and what may come in between.

import {
  FRAMES, framesBeyond, goOn, inCall, isShown, joinCall, loseSocket, open, order, relayOnly, says, startCall, text,
} from "./person.mjs";

/** Two people meet, over one transport; then one of them loses the socket for a while. */
export async function call() {
  const faults = [];
  let invitation;
  const { caller, callee } = await inCall(faults, async (page) => {
    invitation = await text(page, "title");
    await relayOnly(page, order.transport);
  });
  const both = [caller, callee];
  const ways = await Promise.all(both.map((page) => text(page, "way")));
  await loseSocket(caller);
  await goOn(caller, callee);
  const states = await Promise.all(both.map((page) => page.evaluate(() => document.body.dataset.state)));
  const problems = await Promise.all(both.map((page) => text(page, "problem")));
  await caller.click("#hang-up");
  await says(callee, "said", "The other person has left.");
  return { invitation, ways, states, problems, faults };
}

/** Without a relay; then one of the two wants nothing but the relay, in the middle of the call. */
export async function direct() {
  const faults = [];
  const { caller, callee } = await inCall(faults);
  // Firefox takes what works first, and that may be the relay.
  if (order.browser === "chrome") await Promise.all([caller, callee].map((page) => says(page, "way", "direct (")));
  const [way, receiving, sending] = await Promise.all(["way", "receiving", "sending"].map((id) => text(caller, id)));
  await relayOnly(caller);
  await says(caller, "way", "through the relay");
  await goOn(caller, callee);
  return { way, receiving, sending, faults };
}

/** A third one opens the link. */
export async function third() {
  const faults = [];
  const { caller, callee, path } = await inCall(faults);
  const late = await joinCall(path, faults);
  await says(late, "said", "Two others are in this call already.");
  await goOn(caller, callee);
  await callee.click("#hang-up");
  await framesBeyond(late, FRAMES);
  await goOn(caller, late);
  return { faults };
}

/** Who has opened the call is gone without a word, and comes by the link again. */
export async function ghost() {
  const faults = [];
  const { caller, path } = await startCall(faults);
  await caller.evaluate(() => {
    window.testOffline = true;
    window.testSockets.at(-1).close(4000);
  });
  const callee = await joinCall(path, faults);
  await says(callee, "said", "Connecting…");
  const again = await joinCall(path, faults);
  await Promise.all([callee, again].map((page) => framesBeyond(page, FRAMES)));
  return { faults: faults.filter((fault) => fault !== "offline") };
}

/** What the one says to the other gets lost with the socket. */
export async function lost() {
  const faults = [];
  const { caller, path } = await startCall(faults);
  await caller.evaluate(() => { window.testSockets.at(-1).testIsMute = true; });
  const callee = await joinCall(path, faults);
  await says(caller, "said", "Connecting…");
  // The caller ignores it, or takes it and nobody hears its answer.
  await callee.waitForFunction(() => window.testLog.some(([, way, type]) => way === ">" && type === "offer"));
  await loseSocket(caller);
  await Promise.all([caller, callee].map((page) => framesBeyond(page, FRAMES)));
  return { problems: await Promise.all([caller, callee].map((page) => text(page, "problem"))), faults };
}

/** The server is replaced while two talk, who have no need of it. */
export async function restart() {
  const faults = [];
  const { caller, callee } = await inCall(faults);
  const both = [caller, callee];
  for (const page of both) {
    await page.evaluate(() => {
      window.testSaid = [];
      new MutationObserver(() => window.testSaid.push(document.getElementById("said").textContent))
        .observe(document.getElementById("said"), { childList: true });
      window.testBefore = window.testSockets.length;
    });
  }
  await fetch(`${order.control}/restart`, { method: "POST" });
  await Promise.all(both.map((page) => page.waitForFunction(() => window.testSockets.length > window.testBefore
    && window.testSockets.at(-1).readyState === WebSocket.OPEN)));
  await goOn(caller, callee);
  const said = await Promise.all(both.map((page) => page.evaluate(() => window.testSaid.filter(Boolean))));
  await caller.click("#hang-up");
  await says(callee, "said", "The other person has left.");
  return { said, faults };
}

/** The server says that the other side has left the room, and it goes on talking; until it does not. */
export async function unannounced() {
  const faults = [];
  const { caller, callee } = await inCall(faults);
  await callee.evaluate(() => {
    window.testSockets.at(-1).send(JSON.stringify({ type: "leave", room: location.hash.slice(1) }));
  });
  await caller.waitForFunction(() => window.testLog.some(([, way, type]) => way === "<" && type === "peer-left"));
  await goOn(caller, callee);
  const said = await text(caller, "said");
  await callee.click("#hang-up");
  await says(caller, "said", "The other person has left.");
  return { said, shared: await isShown(caller, "share"), faults };
}

/** The server is replaced by one that wants other tokens. */
export async function cutOff() {
  const faults = [];
  const { caller, callee } = await inCall(faults, (page) =>
    page.evaluate((token) => sessionStorage.setItem("token", token), order.token));
  const both = [caller, callee];
  await fetch(`${order.control}/restart`, { method: "POST" });
  await Promise.all(both.map((page) => says(page, "problem", "The call goes on")));
  await goOn(caller, callee);
  const problems = await Promise.all(both.map((page) => text(page, "problem")));
  await caller.click("#hang-up");
  await callee.waitForSelector("#start:not([hidden])");
  return { problems, again: await text(callee, "enter"), faults };
}

/** Microphone and camera off, hanging up, and joining again with both on. */
export async function buttons() {
  const faults = [];
  const { caller, callee } = await inCall(faults);
  const focus = () => caller.evaluate(() => document.activeElement.id);
  const outcome = { focus: [await focus()], bright: [await brightness(callee)] };
  await caller.click("#mute");
  await caller.click("#blind");
  outcome.off = await tracks(caller);
  await callee.waitForFunction(() => window.testBrightness() < 30);
  const { hash } = new URL(caller.url());
  await caller.evaluate(() => { document.getElementById("problem").textContent = "of the last call"; });
  await caller.click("#hang-up");
  outcome.focus.push(await focus());
  await says(callee, "said", "The other person has left.");
  outcome.shared = await isShown(callee, "share");
  // As without a secure context.
  await callee.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new Error("none")); });
  await callee.click("#copy");
  await says(callee, "copy", "Press Ctrl+C");
  outcome.copied = await callee.$eval("#link", ({ value, selectionStart, selectionEnd }) => value.slice(selectionStart, selectionEnd));
  outcome.forgotten = await text(callee, "way");
  await caller.click("#enter");
  await caller.waitForSelector("#meeting:not([hidden])");
  outcome.on = await tracks(caller);
  outcome.problem = await text(caller, "problem");
  outcome.same = new URL(caller.url()).hash === hash;
  await Promise.all([caller, callee].map((page) => framesBeyond(page, FRAMES)));
  await callee.waitForFunction(() => window.testBrightness() > 30);
  return { ...outcome, faults };
}

/** What is sent, and what the buttons say of it. */
function tracks(page) {
  return page.evaluate(() => [["mute", "audio"], ["blind", "video"]].map(([id, wanted]) => {
    const { srcObject } = document.getElementById("local");
    const track = srcObject.getTracks().find(({ kind }) => kind === wanted);
    return [track.enabled, document.getElementById(id).getAttribute("aria-pressed")];
  }));
}

/** How bright what a page sees of the other side is, from 0 to 255. */
function brightness(page) {
  return page.evaluate(() => {
    window.testBrightness = () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
      const context = canvas.getContext("2d");
      context.drawImage(document.getElementById("remote"), 0, 0, 8, 8);
      const { data } = context.getImageData(0, 0, 8, 8);
      return Math.max(...data.filter((_, index) => index % 4 < 3));
    };
    return window.testBrightness();
  });
}

/** A token in the address is used, and goes no further; one that is typed in wins over a bad one. */
export async function token() {
  const faults = [];
  const good = await open(`/call?token=${order.token}&x=1`, faults);
  const address = good.url();
  await good.click("#enter");
  await good.waitForSelector("#share:not([hidden])");
  const link = await good.$eval("#link", (element) => element.value);
  const page = await open("/call?token=bad", faults);
  await page.click("#enter");
  await page.waitForSelector("#ask:not([hidden])");
  const problem = await text(page, "problem");
  await page.type("#token", order.token);
  await page.click("#enter");
  await page.waitForSelector("#share:not([hidden])");
  return { address, link, problem, after: await text(page, "problem"), faults };
}

/** Two pages that are not ours, which know only the introductory protocol. */
export async function calls() {
  const faults = [];
  const callee = await open(`${order.query}&id=callee`, faults);
  await callee.waitForFunction(() => window.ready);
  const caller = await open(`${order.query}&id=caller&call=callee`, faults);
  const played = (page) => page.waitForFunction((least) => window.framesDecoded >= least, {}, FRAMES);
  await Promise.all([played(callee), played(caller)]);
  const refused = await Promise.all([callee, caller].map((page) => page.evaluate(() => window.refused ?? "nothing")));
  await caller.evaluate(() => window.hangUp());
  await callee.waitForFunction(() => window.left);
  return { refused, faults };
}
