// A real browser, and what every page is held to in it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.PAGE_TOOLS, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const LOOKS = [["light", "light", 1180, 900], ["dark", "dark", 1180, 900], ["phone", "dark", 390, 844]];

export const launch = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** The page at `url`, as each of LOOKS has it: names and pages. What the console says, or what is asked from elsewhere, is a complaint. */
export async function open(browser, url, complaints) {
  const pages = [];
  for (const [name, colorScheme, width, height] of LOOKS) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height } });
    page.on("console", message => ["error", "warning"].includes(message.type()) && complaints.push(`${name}: ${message.text()}`));
    page.on("pageerror", error => complaints.push(`${name}: ${error.message}`));
    page.on("request", request => request.url().startsWith(url) || request.url().startsWith("data:") || complaints.push(`${name} asks ${request.url()}`));
    await page.goto(url);
    pages.push([name, page]);
  }
  return pages;
}

export async function noFindings(pages, when) {
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

export function claim(what) {
  console.log(`ok: ${what}`);
}
