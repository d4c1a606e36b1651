// What the call shows of its connection.

import { bitrate } from "./dom.js";

/** Reads reports one after the other; rates are between two of them. */
export class Statistics {
  #before;

  /** What this report says, as text by name. */
  read(reports) {
    const all = [...reports.values()];
    const now = all[0]?.timestamp ?? 0;
    const [received, sent] = [sum(all, "inbound-rtp", "bytesReceived"), sum(all, "outbound-rtp", "bytesSent")];
    const seconds = this.#before ? (now - this.#before.now) / 1000 : 0;
    const rate = (bytes, before) => seconds > 0 ? bitrate(Math.max(0, bytes - before) * 8 / seconds) : "–";
    const pair = selectedPair(reports, all);
    const facts = {
      way: pair ? describe(reports.get(pair.localCandidateId), reports.get(pair.remoteCandidateId)) : "–",
      receiving: rate(received, this.#before?.received),
      sending: rate(sent, this.#before?.sent),
      roundTrip: pair?.currentRoundTripTime === undefined ? "–" : `${(pair.currentRoundTripTime * 1000).toFixed(1)} ms`,
      frames: String(sum(all, "inbound-rtp", "framesDecoded")),
    };
    this.#before = { now, received, sent };
    return facts;
  }
}

const sum = (all, type, key) => all
  .filter((report) => report.type === type)
  .reduce((total, report) => total + (report[key] ?? 0), 0);

/** Firefox has no transport reports, and marks the pair itself. */
function selectedPair(reports, all) {
  const transport = all.find(({ type, selectedCandidatePairId }) => type === "transport" && selectedCandidatePairId);
  if (transport) return reports.get(transport.selectedCandidatePairId);
  const pairs = all.filter(({ type }) => type === "candidate-pair");
  return pairs.find(({ selected }) => selected) ?? pairs.find(({ nominated, state }) => nominated && state === "succeeded");
}

function describe(local, remote) {
  if (!local || !remote) return "–";
  const relays = [local, remote].filter(({ candidateType }) => candidateType === "relay").length;
  const over = local.candidateType === "relay" && local.relayProtocol ? `, reached over ${local.relayProtocol.toUpperCase()}` : "";
  const kind = relays > 0 ? "through the relay" : "direct";
  return `${kind} (${local.candidateType} to ${remote.candidateType}${over})`;
}
