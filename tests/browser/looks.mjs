// What the pages show.

import { mkdir } from "node:fs/promises";
import { inCall, open, order, relayOnly, says, text } from "./person.mjs";

/** The test page, with this server's own credentials or with those that were typed in. */
export async function test() {
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
  const candidates = await page.$$eval("#list tr", (rows) =>
    rows.map((row) => [...row.cells].map(({ textContent }) => textContent)));
  return { results, candidates, nat: await text(page, "nat"), said: await text(page, "said"), faults };
}

/** The first page, while others relay. */
export async function index() {
  const faults = [];
  await inCall(faults, (page) => relayOnly(page));
  const page = await open("/", faults);
  await page.waitForFunction(() => /^[1-9].* [kM]bit/.test(document.getElementById("to-peer").textContent)
    && /^[1-9].* [kM]bit/.test(document.getElementById("to-client").textContent));
  // Enough of a line to look at.
  await page.waitForFunction(() => document.querySelector("#chart .to-peer").points.numberOfItems >= 4);
  await mkdir(order.directory, { recursive: true });
  await page.screenshot({ path: `${order.directory}/index-relaying.png`, fullPage: true });
  const points = await page.$$eval("#chart polyline", (lines) =>
    lines.map(({ points }) => [...points].map(({ x, y }) => [x, y])));
  const said = {};
  for (const id of ["health", "allocations", "peak", "ttl", "snippet"]) said[id] = await text(page, id);
  return { said, points, faults };
}

/** What the first page says of a server that answers so, or not at all; and in the end without being asked again. */
export async function health() {
  const faults = [];
  const page = await open("/test", faults);
  let answers = {};
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const status = answers[new URL(request.url()).pathname];
    if (status === undefined) return request.continue();
    return status === "none" ? request.abort() : request.respond({ status, body: "" });
  });
  const said = [];
  for (answers of [{}, { "/healthz": 503 }, { "/readyz": 503 }, { "/readyz": "none" }, { "/healthz": "none" }]) {
    await page.goto(`${order.url}/`);
    await page.waitForFunction(() => document.getElementById("health").textContent !== "being asked…");
    said.push(await page.$eval("#health", ({ textContent, className }) => [textContent, className]));
  }
  answers = {};
  await says(page, "health", "well.");
  return { said, faults };
}

/** A server that once has no figures, and once breaks off in the middle of them. */
export async function gap() {
  const faults = [];
  const page = await open("/test", faults);
  const figures = (bytes) => `hairpin_relay_bytes_total{direction="to_peer"} ${bytes}\nhairpin_allocations 1\n`;
  const answers = [figures(1e9), figures(1e9), { status: 503, body: "a shard does not answer\n" }, "abort", figures(1e9), figures(1e9)];
  const problems = [];
  await page.setRequestInterception(true);
  page.on("request", async (request) => {
    if (new URL(request.url()).pathname !== "/metrics") return request.continue();
    problems.push(await page.$eval("#live-problem", (element) => element.checkVisibility() && element.textContent));
    const answer = answers.shift() ?? figures(1e9);
    if (answer === "abort") return request.abort();
    return request.respond(typeof answer === "string" ? { status: 200, body: answer } : answer);
  });
  await page.goto(`${order.url}/`);
  await page.waitForFunction(() => document.querySelector("#chart .to-peer").points.numberOfItems >= 2);
  return { problems: problems.slice(2, 6), peak: await text(page, "peak"), faults };
}

const SIZES = { desk: { width: 1000, height: 900 }, phone: { width: 360, height: 740 } };
const SCHEMES = ["light", "dark"];

/** Every page as people see it: on a desk and on a phone, by day and by night. */
export async function screenshots() {
  await mkdir(order.directory, { recursive: true });
  const faults = [];
  const wide = [];
  for (const name of ["", "test", "call"]) {
    const page = await open(`/${name}`, faults);
    await show(page, name);
    wide.push(...await portray(page, name || "index"));
    await page.close();
  }
  const { caller, callee } = await inCall(faults);
  wide.push(...await portray(callee, "call-connected"));
  await caller.click("#hang-up");
  await says(callee, "said", "The other person has left.");
  wide.push(...await portray(callee, "call-left"));
  return { wide, faults };
}

/** Returns where it does not fit, so that it has to be scrolled sideways. */
async function portray(page, name) {
  const wide = [];
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const scheme of SCHEMES) {
      await page.bringToFront();
      await page.setViewport(viewport);
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.screenshot({ path: `${order.directory}/${name}-${size}-${scheme}.png`, fullPage: true });
      if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) wide.push(`${name} on a ${size}`);
    }
  }
  return wide;
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
