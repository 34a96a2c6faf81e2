// Opens the page of a tunnel in a real browser, cuts the link, and looks whether the page tells. With a directory as its
// argument it leaves screenshots there.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { Stage, until } from "./stage.mjs";

const require = createRequire(join(process.env.PAGE_TOOLS, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const shots = process.argv[2];
const LOOKS = [["light", "light", 1180, 900], ["dark", "dark", 1180, 900], ["phone", "dark", 390, 844]];

const stage = await new Stage().start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const complaints = [];
const pages = [];
try {
  await stage.open(2, 60_000);
  await stage.open(1, 4_000);
  await stage.open(1);
  for (const [name, colorScheme, width, height] of LOOKS) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height } });
    page.on("console", message => ["error", "warning"].includes(message.type()) && complaints.push(`${name}: ${message.text()}`));
    page.on("pageerror", error => complaints.push(`${name}: ${error.message}`));
    page.on("request", request => request.url().startsWith(stage.near) || request.url().startsWith("data:") || complaints.push(`${name} asks ${request.url()}`));
    await page.goto(stage.near);
    pages.push([name, page]);
  }
  const page = pages[0][1];
  const text = selector => page.locator(selector).innerText();
  const shows = (selector, part) => until(`${part} in ${selector}`, async () => (await text(selector)).includes(part));
  const shoot = async when => {
    for (const [name, page] of shots ? pages : []) await page.screenshot({ path: join(shots, `${when}-${name}.png`), fullPage: name === "phone" });
  };

  await shows("#state", "live");
  await shows("#wrong", "Nothing is wrong.");
  await shows("#name", "cloud-frankfurt/initiator");
  await until("four sessions", async () => await page.locator("#rows > tr:not(.more)").count() === 4);
  await shows("#times", "edge-lisbon/terminator is reachable.");
  claim("the page shows the tunnel, its peer and its sessions");

  const button = page.locator("#rows button").first();
  await button.focus();
  await page.keyboard.press("Enter");
  await shows("#rows tr.more:not([hidden])", "X25519MLKEM768");
  await page.keyboard.press("Enter");
  await page.locator("#routine").focus();
  await page.keyboard.press("Space");
  await shows("#times", "Keys replaced");
  await page.keyboard.press("Space");
  claim("it is used by keyboard, and rotations are told");
  if (shots) await new Promise(resolve => setTimeout(resolve, 25_000));
  await shoot("quiet");
  await noFindings(pages, "quiet");

  stage.relay.cut();
  await shows("#problems", "4 sessions are without a link");
  await shows("#problems", "edge-lisbon/terminator is not reachable");
  await shows("#times", "Session without a link");
  await shoot("cut");
  await noFindings(pages, "during a cut");
  stage.relay.mend();
  await shows("#times", "Session resumed after");
  await shows("#wrong", "Nothing is wrong.");
  claim("a cut and its end are told, with what to do");
  for (const [name, page] of pages) {
    await until(`the page to be well again, ${name}`, async () => (await page.locator("#wrong").innerText()).includes("Nothing is wrong."));
  }
  if (shots) await new Promise(resolve => setTimeout(resolve, 8_000));
  await shoot("resumed");

  // Its own connection is lost with the tunnel: the browser itself says so in the console.
  const before = complaints.splice(0);
  stage.nearProcess.kill("SIGKILL");
  await shows("#state", "not connected");
  await shows("#problems", "This page is not connected to the tunnel since");
  await shoot("away");
  claim("it says that it is not connected");
  complaints.splice(0, complaints.length, ...before);
  if (complaints.length) throw new Error(`the browser complains:\n${complaints.join("\n")}`);
  claim("the console has no error, and nothing was asked from elsewhere");
} finally {
  await browser.close();
  stage.stop();
}
process.exit(0);

async function noFindings(pages, when) {
  for (const [name, page] of pages) {
    // The page's own policy lets nothing in: the browser does, for axe.
    const context = await page.context().newCDPSession(page);
    await context.send("Page.setBypassCSP", { enabled: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    await context.send("Page.setBypassCSP", { enabled: false });
    const found = violations.map(v => `${v.id} (${v.impact}): ${v.help}: ${v.nodes.map(n => n.target.join(" ")).join(", ")}`);
    if (found.length) throw new Error(`axe, ${name}, ${when}:\n${found.join("\n")}`);
  }
  claim(`axe has nothing to say of it, ${when}`);
}

function claim(what) {
  console.log(`ok: ${what}`);
}
