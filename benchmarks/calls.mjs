// StartBatchJob calls through the JavaScript SDK v3, 64 at a time: node calls.mjs --url URL --calls N

import assert from "node:assert";
import http from "node:http";
import https from "node:https";
import { parseArgs } from "node:util";
import { M2Client, StartBatchJobCommand } from "@aws-sdk/client-m2";

const CONCURRENCY = 64;
const { values } = parseArgs({ options: { url: { type: "string" }, calls: { type: "string" } } });
const calls = Number(values.calls);
const agent = { keepAlive: true, maxSockets: CONCURRENCY };
const client = new M2Client({
  region: "us-east-1",
  endpoint: values.url,
  requestHandler: { httpAgent: new http.Agent(agent), httpsAgent: new https.Agent(agent) },
});

async function run(count) {
  const requests = Array.from({ length: count }, (_, number) => ({
    applicationId: "carddemolocalapplication23",
    batchJobIdentifier: { scriptBatchJobIdentifier: { scriptName: "POSTTRAN" } },
    jobParams: { RUNDATE: "20261123", BRANCH: String(number).padStart(7, "0") },
  })).values();
  const ids = new Set();
  async function work() {
    for (const request of requests) {
      ids.add((await client.send(new StartBatchJobCommand(request))).executionId);
    }
  }
  const began = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
  const { user, system } = process.cpuUsage(cpu);
  assert.equal(ids.size, count);
  return { seconds: Number(process.hrtime.bigint() - began) / 1e9, cpu_seconds: (user + system) / 1e6 };
}

await run(Math.max(2 * CONCURRENCY, Math.floor(calls / 4)));
console.log(JSON.stringify(await run(calls)));
client.destroy();
