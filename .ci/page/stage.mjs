// Two tunnels with a relay in between that can be cut, an application that sends back what it gets, and its callers.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";

const bin = process.env.FERRY_BIN ?? "target/release/ferry";

async function listen(handler) {
  const server = createServer(handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return [server, server.address().port];
}

export async function freePort() {
  const [server, port] = await listen(() => {});
  server.close();
  await once(server, "close");
  return port;
}

/** Connections through it are cut, and refused until it is mended. */
class Relay {
  #open = new Set();
  #cut = false;
  async start(target) {
    const [, port] = await listen(near => {
      if (this.#cut) return near.resetAndDestroy();
      const far = connect(target, "127.0.0.1");
      for (const [one, other] of [[near, far], [far, near]]) {
        this.#open.add(one);
        one.on("error", () => {}).on("close", () => { this.#open.delete(one); other.destroy(); });
        one.pipe(other);
      }
    });
    this.port = port;
    return this;
  }
  cut() {
    this.#cut = true;
    for (const socket of this.#open) socket.resetAndDestroy();
  }
  mend() {
    this.#cut = false;
  }
}

export class Stage {
  dir = mkdtempSync(join(tmpdir(), "ferry-page-"));
  #processes = [];

  async start({ every = "10s" } = {}) {
    const [, echo] = await listen(socket => socket.on("error", () => {}).pipe(socket));
    const keys = {};
    for (const name of ["near", "far"]) {
      keys[name] = execFileSync(bin, ["keygen", "--out", join(this.dir, `${name}.key`)], { encoding: "utf8" }).trim();
    }
    const [link, farAdmin, nearAdmin, app] = await Promise.all(Array.from({ length: 4 }, freePort));
    this.relay = await new Relay().start(link);
    this.#tunnel("far", [
      "name: edge-lisbon/terminator", "identity: far.key", `admin: 127.0.0.1:${farAdmin}`, `listen: 127.0.0.1:${link}`,
      `peers: [{name: cloud-frankfurt/initiator, keys: ["${keys.near}"]}]`,
      `ingress: [{service: telemetry, forward: "127.0.0.1:${echo}", allow: [cloud-frankfurt/initiator]}]`,
    ]);
    this.#tunnel("near", [
      "name: cloud-frankfurt/initiator", "identity: near.key", `admin: 127.0.0.1:${nearAdmin}`,
      `peers: [{name: edge-lisbon/terminator, keys: ["${keys.far}"], addresses: ["127.0.0.1:${this.relay.port}"]}]`,
      `egress: [{listen: "127.0.0.1:${app}", peer: edge-lisbon/terminator, service: telemetry, limits: {sessions: 4}}]`,
      `rotation: {every: ${every}, max_per_second: 1000}`,
    ]);
    Object.assign(this, { app, near: `http://127.0.0.1:${nearAdmin}`, far: `http://127.0.0.1:${farAdmin}` });
    await until("the tunnels to be ready", async () => (await fetch(`${this.near}/readyz?peers=1`)).ok);
    return this;
  }

  #tunnel(name, lines) {
    writeFileSync(join(this.dir, `${name}.yaml`), lines.join("\n") + "\n");
    const process = spawn(bin, ["tunnel", "--config", join(this.dir, `${name}.yaml`)], { stdio: "ignore" });
    this.#processes.push(process);
    this[`${name}Process`] = process;
  }

  /** Sessions; those with `bytes` exchange so many, ten times a second. */
  async open(count, bytes = 0) {
    for (let i = 0; i < count; i++) {
      const socket = connect(this.app, "127.0.0.1");
      socket.on("error", () => {}).resume();
      await once(socket, "connect");
      socket.write("hello");
      if (bytes) {
        const send = () => socket.destroyed ? clearInterval(timer) : socket.writableLength < 4e6 && socket.write(Buffer.alloc(bytes * (0.4 + Math.random())));
        const timer = setInterval(send, 100).unref();
      }
    }
  }

  stop() {
    for (const process of this.#processes) process.kill("SIGKILL");
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Waits until something holds; errors on the way count as not yet. */
export async function until(what, holds, seconds = 30) {
  const end = Date.now() + seconds * 1000;
  for (let last; ; await new Promise(resolve => setTimeout(resolve, 50))) {
    try {
      if (await holds()) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}${last ? `: ${last.message}` : ""}`);
  }
}
