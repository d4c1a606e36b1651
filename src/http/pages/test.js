import { at, bitrate, make, token } from "./dom.js";
import { causeOf, fetchIceServers, isTurn, oneByOne } from "./ice.js";
import { gather, natOf } from "./gather.js";
import { relay } from "./relay.js";

async function chosenServers() {
  if (new FormData(at("form")).get("which") === "own") {
    if (at("token").value) token.set(at("token").value);
    return oneByOne((await fetchIceServers(token.get())).iceServers);
  }
  const urls = at("urls").value.split(/\s+/).filter(Boolean);
  if (urls.length === 0) throw new Error("Type in at least one URL.");
  const wrong = urls.find((url) => !/^(stun|turn)s?:[^/]/.test(url));
  if (wrong) throw new Error(`“${wrong}” is no URL of a STUN or TURN server; it begins with stun:, turn: or turns:.`);
  const credentials = { username: at("username").value, credential: at("credential").value };
  return urls.map((urls) => isTurn(urls) ? { urls, ...credentials } : { urls });
}

async function run() {
  for (const id of ["outcome", "network", "candidates"]) at(id).hidden = true;
  at("results").replaceChildren();
  at("list").replaceChildren();
  const servers = await chosenServers();
  at("outcome").hidden = false;
  let failed = 0;
  for (const server of servers) {
    const result = showStarted(server.urls);
    try {
      showWorks(result, await test(server));
    } catch (error) {
      failed += 1;
      showFails(result, error);
    }
  }
  await showNetwork(servers);
  return failed === 0
    ? `All ${servers.length} work.`
    : `${failed} of ${servers.length} ${failed === 1 ? "does" : "do"} not work.`;
}

/** Tests one URL; throws with the cause where it does not work. */
async function test(server) {
  at("said").textContent = `Testing ${server.urls}…`;
  const started = performance.now();
  const wanted = isTurn(server.urls) ? "relay" : "srflx";
  const { candidates, errors, answering } = await gather([server], wanted);
  showCandidates(candidates);
  const found = candidates.filter(({ type }) => type === wanted);
  if (found.length === 0 && wanted === "srflx" && answering.length > 0) {
    // Without a NAT in between, the reflexive address is the host's own, and browsers leave it out.
    return { took: performance.now() - started, note: "no NAT in between" };
  }
  if (found.length === 0) throw new Error(errors[0] ?? causeOf({ errorCode: 701, url: server.urls }));
  const took = performance.now() - started;
  return isTurn(server.urls) ? { took, ...await relay(server) } : { took };
}

function showStarted(url) {
  const verdict = make("span", { class: "status wait" }, "testing…");
  const details = make("div", { class: "details" });
  const result = make("li", { "data-url": url }, make("div", { class: "url" }, url), verdict, details);
  at("results").append(result);
  return { result, verdict, details };
}

function showWorks({ result, verdict, details }, { took, rtt, loss, throughput, note }) {
  result.dataset.outcome = "works";
  verdict.className = "status good";
  verdict.textContent = "works";
  const facts = [`answered in ${took.toFixed(0)} ms`];
  if (note) facts.push(note);
  if (rtt) facts.push(`round trip ${rtt.median.toFixed(1)} ms, 95 % under ${rtt.p95.toFixed(1)} ms`);
  if (loss !== undefined) facts.push(`${(loss * 100).toFixed(loss === 0 ? 0 : 1)} % lost`);
  if (throughput) facts.push(bitrate(throughput));
  details.textContent = facts.join(" · ");
}

function showFails({ result, verdict, details }, error) {
  result.dataset.outcome = "fails";
  verdict.className = "status bad";
  verdict.textContent = "does not work";
  details.textContent = error.message;
}

function showCandidates(candidates) {
  at("candidates").hidden = false;
  for (const { type, protocol, relayProtocol, address, port, url } of candidates) {
    const transport = relayProtocol ? `${protocol}, reached over ${relayProtocol}` : protocol;
    at("list").append(make("tr", {},
      make("td", {}, type),
      make("td", {}, transport),
      make("td", { class: "url" }, `${address}:${port}`),
      type === "host" ? make("td", {}, "this machine") : make("td", { class: "url" }, url ?? ""),
    ));
  }
}

async function showNetwork(servers) {
  at("said").textContent = "Looking at the network…";
  at("nat").textContent = await natOf(servers);
  at("network").hidden = false;
}

at("form").addEventListener("change", () => {
  const own = new FormData(at("form")).get("which") === "own";
  at("own").hidden = !own;
  at("other").hidden = own;
});

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("run").disabled = true;
  at("said").className = "";
  delete document.body.dataset.done;
  try {
    at("said").textContent = await run();
  } catch (error) {
    at("said").textContent = error.message;
    at("said").className = "bad";
  }
  document.body.dataset.done = "yes";
  at("run").disabled = false;
});
