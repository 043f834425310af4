// The main process of an Electron app that starts the sidecar, shows its page, and ends it.
//
//   npm install electron && npx electron electron-main.js
//
// SIDECAR is the frozen `alignpro-lite` in the app's resources, or the command of an installed one.
"use strict";

const { spawn } = require("node:child_process");
const { createInterface } = require("node:readline");

const SIDECAR = process.env.ALIGNPRO_LITE || "alignpro-lite";
const START_MS = 120_000;

// Resolves to the one line of JSON that the server prints when it is ready.
function startSidecar(command = SIDECAR, options = []) {
  const follow = ["--port", "0", "--parent-pid", String(process.pid), "--until-stdin-closes"];
  const child = spawn(command, ["serve", ...follow, ...options], {
    stdio: ["pipe", "pipe", "pipe"], // stdin stays open as long as this process lives
    windowsHide: true,
  });
  let problem = "";
  child.stderr.on("data", text => (problem = (problem + text).slice(-2000)));
  const ready = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("The sidecar is not ready in time.")), START_MS);
    createInterface({ input: child.stdout }).once("line", line => resolve(JSON.parse(line)));
    child.once("error", reject);
    child.once("exit", code => reject(new Error(`The sidecar ended with ${code}. ${problem}`)));
    const settled = () => clearTimeout(timer);
    child.stdout.once("data", settled).once("close", settled);
  });
  return { child, ready };
}

// Resolves when it has ended: by itself at the end of stdin, or else killed after five seconds.
function endSidecar(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise(resolve => {
    const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
    child.once("exit", () => resolve(clearTimeout(timer)));
    child.stdin.end();
  });
}

async function main() {
  const { app, BrowserWindow, dialog } = require("electron");
  await app.whenReady();
  const { child, ready } = startSidecar();
  let isEnding = false;
  app.on("before-quit", async event => {
    if (isEnding) return;
    isEnding = true;
    event.preventDefault();
    await endSidecar(child);
    app.quit();
  });
  app.on("window-all-closed", () => app.quit());
  try {
    const { url, token } = await ready;
    const window = new BrowserWindow({ width: 1000, height: 720 });
    await window.loadURL(`${url}/#token=${token}`); // the token is not sent in a fragment
  } catch (error) {
    dialog.showErrorBox("The model cannot be started", error.message);
    app.quit();
  }
}

module.exports = { startSidecar, endSidecar };
if (process.versions.electron) main();
