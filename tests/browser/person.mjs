// A browser, and what a person does with it.

import puppeteer from "puppeteer-core";

/** A loaded machine is slow; nothing is measured. */
const PATIENCE_MS = 60_000;
/** Video plays at 15 frames a second or more. */
export const FRAMES = 60;

export const order = JSON.parse(process.argv[2]);

export const browser = await puppeteer.launch({
  browser: order.browser,
  executablePath: order.program,
  args: order.arguments,
  userDataDir: order.profile,
  headless: true,
  extraPrefsFirefox: order.preferences,
});

const opened = [];

/** A page in a context of its own, as if somebody else had opened it; `faults` collects its errors. */
export async function open(path, faults = []) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  opened.push({ page, faults });
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && /Content.Security.Policy/i.test(message.text())) faults.push(message.text());
  });
  // Lets a test take a socket away, or what is sent through it.
  await page.evaluateOnNewDocument(() => {
    const sockets = [];
    window.testSockets = sockets;
    window.testLog = [];
    const log = (way, text) => {
      const { type, payload } = JSON.parse(text);
      const { session, of, offer, code } = payload ?? {};
      if (type !== "ping" && type !== "pong") window.testLog.push([Math.round(performance.now()), way, type, session, of, offer ?? code]);
    };
    window.WebSocket = class extends WebSocket {
      constructor(...parameters) {
        if (window.testOffline) throw new Error("offline");
        super(...parameters);
        sockets.push(this);
        this.addEventListener("message", ({ data }) => log("<", data));
        this.addEventListener("close", ({ code }) => window.testLog.push([Math.round(performance.now()), "closed", code]));
      }

      send(text) {
        log(">", text);
        if (!this.testIsMute) super.send(text);
      }
    };
  });
  await page.goto(order.url + path);
  return page;
}

/** What each page says by now, and what went wrong in it: for whoever has to find out why. */
export function everything() {
  return Promise.all(opened.map(async ({ page, faults }) => {
    const all = () => ({ said: document.body.innerText, state: document.body.dataset.state, log: window.testLog.map(String) });
    return { faults, ...await page.evaluate(all).catch((error) => ({ said: error.message })) };
  }));
}

export function text(page, id) {
  return page.$eval(`#${id}`, (element) => element.textContent.trim());
}

/** Waits until an element says so; a part of it is enough. */
export function says(page, id, part) {
  return page.waitForFunction((id, part) => document.getElementById(id).textContent.includes(part), {}, id, part);
}

export function isShown(page, id) {
  return page.$eval(`#${id}`, (element) => element.checkVisibility());
}

export function framesBeyond(page, count) {
  return page.waitForFunction((least) => Number(document.getElementById("frames").textContent) >= least, {}, count);
}

/** Waits until each of them sees more of the other than by now. */
export async function goOn(...pages) {
  const before = await Promise.all(pages.map(async (page) => Number(await text(page, "frames")) || 0));
  await Promise.all(pages.map((page, index) => framesBeyond(page, before[index] + FRAMES)));
}

/** Starts a call, and returns the page and the path that invites to it. */
export async function startCall(faults, prepare = () => {}) {
  const caller = await open("/call", faults);
  await prepare(caller);
  await caller.click("#enter");
  await caller.waitForSelector("#share:not([hidden])");
  const link = await caller.$eval("#link", (element) => element.value);
  return { caller, path: link.slice(order.url.length) };
}

export async function joinCall(path, faults, prepare = () => {}) {
  const callee = await open(path, faults);
  await prepare(callee);
  await callee.click("#enter");
  return callee;
}

/** Two people in a call, who see each other. */
export async function inCall(faults, prepare) {
  const { caller, path } = await startCall(faults, prepare);
  const callee = await joinCall(path, faults, prepare);
  await Promise.all([caller, callee].map((page) => framesBeyond(page, FRAMES)));
  return { caller, callee, path };
}

/** As the options say: only the relay, and reached over one transport. */
export async function relayOnly(page, transport) {
  await page.click("#options summary");
  await page.click("#relay-only");
  if (transport) await page.select("#transport", transport);
}

/** Takes the socket away and waits until the page has another one that the server knows. */
export async function loseSocket(page) {
  const count = await page.evaluate(() => {
    const { testSockets } = window;
    testSockets.at(-1).addEventListener("close", () => { window.testSocketLost = true; });
    testSockets.at(-1).close(4000);
    return testSockets.length;
  });
  await page.waitForFunction((before) => window.testSocketLost
    && window.testSockets.length > before
    && window.testSockets.at(-1).readyState === WebSocket.OPEN, {}, count);
}
