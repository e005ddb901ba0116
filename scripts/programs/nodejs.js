// What the recipe `nodejs` promises: Node.js with its library, and npm.
const assert = require("node:assert");
const { createHash } = require("node:crypto");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const zlib = require("node:zlib");

assert.strictEqual(process.env.NODE_ENV, "production");
assert.strictEqual(createHash("sha256").update("").digest("hex").slice(0, 8), "e3b0c442");
assert.strictEqual(zlib.gunzipSync(zlib.gzipSync("hello")).toString(), "hello");

async function main() {
  const server = http.createServer((_, response) => response.end("hello")).listen(0, "localhost");
  await new Promise((resolve) => server.once("listening", resolve));
  const body = await new Promise((resolve) =>
    http.get({ port: server.address().port, agent: false }, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("end", () => resolve(text));
    }),
  );
  server.close();
  assert.strictEqual(body, "hello");
  // A package made and installed, from this folder: no registry is asked.
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "npm"));
  fs.mkdirSync(path.join(folder, "answer"));
  fs.writeFileSync(path.join(folder, "answer/package.json"), '{"name": "answer", "version": "1.0.0"}');
  fs.writeFileSync(path.join(folder, "answer/index.js"), "module.exports = 42;");
  fs.writeFileSync(path.join(folder, "package.json"), '{"name": "user", "version": "1.0.0"}');
  const npm = (...words) => execFileSync("npm", words, { cwd: folder, encoding: "utf8" }).trim();
  npm("install", "--offline", "--no-audit", "--no-fund", "./answer");
  assert.strictEqual(require(path.join(folder, "node_modules/answer")), 42);
  console.log(`ok: Node.js ${process.versions.node}, npm ${npm("--version")}`);
}

main();
