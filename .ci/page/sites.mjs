// Opens the page of a terminator with two sites in a real browser, and sends a message to one of them, and one to all.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { claim, launch, noFindings, open } from "./browser.mjs";
import { freePort, until } from "./stage.mjs";

const bin = process.env.FERRY_BIN ?? "target/release/ferry";
const dir = mkdtempSync(join(tmpdir(), "ferry-sites-page-"));
const processes = [], complaints = [];
const role = (name, pod, port, ...more) => processes.push(spawn(bin,
  [name, "--listen", `127.0.0.1:${port}`, "--data", join(dir, pod), "--pod", pod, "--cluster", "lisbon", ...more], { stdio: "ignore" }));

/** What names a peer to a terminator, as the tunnel does: a header of the PROXY protocol, with the name alone. */
function announcement(peer) {
  const name = Buffer.from(peer), signature = Buffer.from("0d0a0d0a000d0a515549540a", "hex");
  // Version 2, the command LOCAL, no addresses, and one field.
  return Buffer.concat([signature, Buffer.from([0x20, 0, 0, name.length + 3, 0xe0, 0, name.length]), name]);
}

/** The port of a way to a web-app, which announces this peer. */
async function wayFor(peer, target) {
  const server = createServer(near => {
    const far = connect(target, "127.0.0.1");
    far.write(announcement(peer));
    for (const [one, other] of [[near, far], [far, near]]) one.on("error", () => {}).on("close", () => other.destroy()).pipe(other);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server.address().port;
}

const browser = await launch();
try {
  const [here, ...sites] = [await freePort(), await freePort(), await freePort()], names = ["harbour/east", "harbour/west"];
  role("terminator", "office", here);
  for (const [at, port] of sites.entries()) {
    role("initiator", `ship-${at}`, port, "--peer", `ws://127.0.0.1:${await wayFor(names[at], here)}/ws`, "--auto-trigger", "0");
  }
  for (const port of [here, ...sites]) await until("the web-apps to be ready", async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
  const arrivedAt = async port => (await (await fetch(`http://127.0.0.1:${port}/output`)).text());
  const pages = await open(browser, `http://127.0.0.1:${here}`, complaints), page = pages[0][1];
  // In the order in which they have connected first.
  const options = async () => (await page.locator("#to option").allInnerTexts()).sort().join();
  await until("both sites to choose from", async () => await options() === `all of them,${names.join()}`);
  await noFindings(pages, "with two sites");

  const send = async (to, payload) => {
    await page.locator("#to").selectOption(to);
    await page.locator("#payload").fill(payload);
    await page.locator("#trigger").click();
  };
  await send("harbour/west", '{"n": 1}');
  await until("it at the site of choice", async () => (await arrivedAt(sites[1])).includes('{"n":1}'));
  await send("*", '{"n": 2}');
  for (const port of sites) await until("it at every site", async () => (await arrivedAt(port)).includes('{"n":2}'));
  if ((await arrivedAt(sites[0])).includes('{"n":1}')) throw new Error("a message for one site went to the other, too");
  if (complaints.length) throw new Error(`the browser complains:\n${complaints.join("\n")}`);
  claim("a message is sent to the site that is chosen, or to all");
} finally {
  await browser.close();
  for (const process of processes) process.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
}
process.exit(0);
