// Opens the page of a web-app in a real browser: sends a message, sees it arrive with its way, and retries a dead one. With
// a directory as its argument it leaves screenshots there.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { claim, launch, noFindings, open } from "./browser.mjs";
import { freePort, until } from "./stage.mjs";

const bin = process.env.FERRY_BIN ?? "target/release/ferry";
const shots = process.argv[2];
const TOKEN = "0123456789abcdef-of-the-page";

// Without a tunnel in between: the page does not see it.
const dir = mkdtempSync(join(tmpdir(), "ferry-webapp-page-"));
const processes = [];
writeFileSync(join(dir, "app.py"), `
import os

def on_receive_terminator(payload):
    if payload.get("poison") and not os.path.exists(${JSON.stringify(join(dir, "cured"))}):
        raise ValueError("I do not take poison")
    return {"taken": payload.get("n", 0)}
`);
writeFileSync(join(dir, "token"), TOKEN, { mode: 0o600 });
const [near, far] = [await freePort(), await freePort()];
const role = (name, port, more) => processes.push(spawn(bin, [name, "--listen", `127.0.0.1:${port}`, "--data", join(dir, name), ...more], { stdio: "ignore" }));
role("terminator", far, ["--pod", "harbour-0", "--cluster", "lisbon", "--hooks", join(dir, "app.py")]);
role("initiator", near, ["--pod", "ship-0", "--cluster", "frankfurt", "--peer", `ws://127.0.0.1:${far}/ws`, "--auto-trigger", "2", "--token-file", join(dir, "token")]);

const browser = await launch();
const complaints = [];
try {
  for (const port of [near, far]) await until("the web-apps to be ready", async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
  const there = await open(browser, `http://127.0.0.1:${far}`, complaints);
  const page = there[0][1];
  const shows = (page, selector, part) => until(`${part} in ${selector}`, async () => (await page.locator(selector).innerText()).includes(part));
  const shoot = async (pages, when) => {
    for (const [name, page] of shots ? pages : []) await page.screenshot({ path: join(shots, `webapp-${when}-${name}.png`), fullPage: name === "phone" });
  };
  await shows(page, "#state", "live");
  await shows(page, "#sites", "ship-0 in frankfurt");
  await shows(page, "#well", "Nothing is wrong.");
  await until("two messages", async () => await page.locator("#arrived > li").count() === 2);
  await until("their way", async () => /ship-0 in frankfurt.*harbour-0 in lisbon/.test(await page.locator("#arrived svg").first().getAttribute("aria-label")));
  claim("the page shows the far web-app, and what has arrived with its way through the clusters");

  // Without the token a browser says in its console that it was refused.
  const before = complaints.splice(0);
  const here = await open(browser, `http://127.0.0.1:${near}`, complaints);
  for (const [, page] of here) await shows(page, "#problems", "asks for its token");
  const guarded = here[0][1];
  await guarded.locator("#token").fill(TOKEN);
  await guarded.keyboard.press("Enter");
  await shows(guarded, "#state", "live");
  complaints.splice(0, complaints.length, ...before);
  claim("a token is asked for, and used");

  await guarded.locator("#payload").fill('{"n": 41}');
  await guarded.locator("#trigger").focus();
  await guarded.keyboard.press("Enter");
  await shows(guarded, "#answer", '"taken": 41');
  await shows(page, "#arrived", '{"n":41}');
  claim("the form sends a message, and shows its reply");
  await shoot(there, "quiet");
  await noFindings([...there, ["guarded", guarded]], "quiet");

  await guarded.locator("#payload").fill('{"poison": true}');
  await guarded.locator("#wait").uncheck();
  await guarded.locator("#trigger").click();
  await shows(page, "#dead", "I do not take poison");
  await shows(page, "#problems", "1 message is dead");
  await shoot(there, "dead");
  await noFindings(there, "with a dead message");
  const hook = complaints.splice(0);
  await page.locator("#dead button").focus();
  await page.keyboard.press("Enter");
  await shows(page, "#retried", "I do not take poison");
  // The browser tells of the answer 500, too.
  complaints.splice(0, complaints.length, ...hook);
  writeFileSync(join(dir, "cured"), "");
  await page.locator("#dead button").focus();
  await page.keyboard.press("Enter");
  await shows(page, "#retried", "is delivered now");
  await shows(page, "#arrived", '{"poison":true}');
  await until("no dead message", async () => await page.locator("#dead > li").count() === 0);
  claim("a dead message is shown, refused again, and delivered by a retry");
  if (complaints.length) throw new Error(`the browser complains:\n${complaints.join("\n")}`);
  claim("the console has no error, and nothing was asked from elsewhere");

  complaints.splice(0);
  processes[0].kill("SIGKILL");
  await shows(page, "#state", "not connected");
  await shows(page, "#problems", "This page is not connected to the web-app since");
  claim("it says that it is not connected");
} finally {
  await browser.close();
  for (const process of processes) process.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
}
process.exit(0);
