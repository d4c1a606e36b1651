// Does in a real browser what a person would do with the pages, and prints what came of it as JSON.
//
// usage: node drive.mjs '{"scenario", "browser", "program", "arguments", "profile", "url", …}'

import * as calls from "./calls.mjs";
import * as looks from "./looks.mjs";
import * as parts from "./parts.mjs";
import { browser, everything, order } from "./person.mjs";

let outcome;
try {
  outcome = await { ...calls, ...looks, ...parts }[order.scenario]();
} catch (error) {
  outcome = { error: error.stack, pages: await everything() };
}
console.log(JSON.stringify(outcome));
await browser.close();
