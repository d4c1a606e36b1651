// Does in a real browser what a person would do with the pages, and prints what came of it as JSON.
//
// usage: node drive.mjs '{"scenario", "browser", "program", "arguments", "profile", "url", …}'

import { mkdir } from "node:fs/promises";
import puppeteer from "puppeteer-core";

/** A loaded machine is slow; nothing is measured. */
const PATIENCE_MS = 60_000;
/** Video plays at 15 frames a second or more. */
const FRAMES = 60;

const order = JSON.parse(process.argv[2]);

const browser = await puppeteer.launch({
  browser: order.browser,
  executablePath: order.program,
  args: order.arguments,
  userDataDir: order.profile,
  headless: true,
  extraPrefsFirefox: order.preferences,
});
let outcome;
try {
  outcome = await { call, calls, test, screenshots }[order.scenario]();
} catch (error) {
  outcome = { error: error.stack };
}
console.log(JSON.stringify(outcome));
await browser.close();

/** A page in a context of its own, as if somebody else had opened it; `faults` collects its errors. */
async function open(path, faults = []) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && /Content.Security.Policy/i.test(message.text())) faults.push(message.text());
  });
  // Lets a test take a socket away.
  await page.evaluateOnNewDocument(() => {
    const sockets = [];
    window.testSockets = sockets;
    window.WebSocket = class extends WebSocket {
      constructor(...parameters) {
        super(...parameters);
        sockets.push(this);
      }
    };
  });
  await page.goto(order.url + path);
  return page;
}

function text(page, id) {
  return page.$eval(`#${id}`, (element) => element.textContent.trim());
}

function framesBeyond(page, count) {
  return page.waitForFunction((least) => Number(document.getElementById("frames").textContent) >= least, {}, count);
}

/** Two people meet, over one transport; then one of them loses the socket for a while. */
async function call() {
  const faults = [];
  const caller = await open("/call", faults);
  await choose(caller);
  await caller.click("#enter");
  await caller.waitForSelector("#share:not([hidden])");
  const link = await caller.$eval("#link", (element) => element.value);
  const callee = await open(link.slice(order.url.length), faults);
  await choose(callee);
  const invitation = await text(callee, "title");
  await callee.click("#enter");
  const both = [caller, callee];
  await Promise.all(both.map((page) => framesBeyond(page, FRAMES)));
  const ways = await Promise.all(both.map((page) => text(page, "way")));
  await loseSocket(caller);
  const before = await Promise.all(both.map(async (page) => Number(await text(page, "frames"))));
  await Promise.all(both.map((page, index) => framesBeyond(page, before[index] + FRAMES)));
  const states = await Promise.all(both.map((page) => page.evaluate(() => document.body.dataset.state)));
  const problems = await Promise.all(both.map((page) => text(page, "problem")));
  await caller.click("#hang-up");
  await callee.waitForFunction(() => document.getElementById("said").textContent === "The other person has left.");
  return { invitation, ways, states, problems, faults };
}

/** As the options say: only the relay, and reached over one transport. */
async function choose(page) {
  if (!order.transport) return;
  await page.click("#options summary");
  await page.click("#relay-only");
  await page.select("#transport", order.transport);
}

/** Takes the socket away and waits until the page has another one that the server knows. */
async function loseSocket(page) {
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

/** Two pages that are not ours, which know only the introductory protocol. */
async function calls() {
  const faults = [];
  const callee = await open(`${order.query}&id=callee`, faults);
  await callee.waitForFunction(() => window.ready);
  const caller = await open(`${order.query}&id=caller&call=callee`, faults);
  const played = (page) => page.waitForFunction((least) => window.framesDecoded >= least, {}, FRAMES);
  await Promise.all([played(callee), played(caller)]);
  return { faults };
}

/** The test page, with this server's own credentials or with those that were typed in. */
async function test() {
  const faults = [];
  const page = await open("/test", faults);
  if (order.typed) {
    await page.click("input[value=other]");
    await page.type("#urls", order.typed.urls.join(" "));
    await page.type("#username", order.typed.username);
    await page.type("#credential", order.typed.credential);
  }
  await page.click("#run");
  await page.waitForFunction(() => document.body.dataset.done);
  const results = await page.$$eval("#results li", (items) => items.map((item) => ({
    url: item.dataset.url,
    outcome: item.dataset.outcome,
    details: item.querySelector(".details").textContent,
  })));
  return { results, said: await text(page, "said"), faults };
}

/** Every page as people see it: on a desk and on a phone, by day and by night. */
async function screenshots() {
  await mkdir(order.directory, { recursive: true });
  const faults = [];
  const wide = [];
  for (const [size, viewport] of Object.entries({ desk: { width: 1000, height: 900 }, phone: { width: 360, height: 740 } })) {
    for (const scheme of ["light", "dark"]) {
      for (const name of ["", "test", "call"]) {
        const page = await open(`/${name}`, faults);
        await page.setViewport(viewport);
        await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
        await show(page, name);
        await page.screenshot({ path: `${order.directory}/${name || "index"}-${size}-${scheme}.png`, fullPage: true });
        // What does not fit has to be scrolled sideways.
        if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) wide.push(`/${name} on a ${size}`);
        await page.close();
      }
    }
  }
  return { wide, faults };
}

/** Brings a page to where it shows the most. */
async function show(page, name) {
  switch (name) {
    case "test":
      await page.click("#run");
      return page.waitForFunction(() => document.body.dataset.done);
    case "call":
      await page.click("#enter");
      return page.waitForSelector("#share:not([hidden])");
    default:
      await page.waitForSelector("#ice:not([hidden])");
      return page.waitForSelector("#live:not([hidden])");
  }
}
