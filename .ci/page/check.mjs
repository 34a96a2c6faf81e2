// Opens the page of a tunnel in a real browser, cuts the link, and looks whether the page tells. With a directory as its
// argument it leaves screenshots there.

import { join } from "node:path";
import { claim, launch, noFindings, open } from "./browser.mjs";
import { Stage, until } from "./stage.mjs";

const shots = process.argv[2];
const stage = await new Stage().start();
const browser = await launch();
const complaints = [];
try {
  await stage.open(2, 60_000);
  await stage.open(1, 4_000);
  await stage.open(1);
  const pages = await open(browser, stage.near, complaints);
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
  await shows("#limited", "4 of 4, full");
  // It may be reset before it is told that it has connected.
  await stage.open(1).catch(() => {});
  await until("one more session refused", async () => await page.locator("#limited td").nth(2).innerText() === "1");
  claim("a limit is shown with what is used of it, and what it refused");

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
