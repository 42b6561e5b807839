// Drives every route of the endpoint at AWS_ENDPOINT_URL_M2 with the unmodified SDK; prints one JSON object.
import {
  CancelBatchJobExecutionCommand,
  GetApplicationCommand,
  GetBatchJobExecutionCommand,
  ListApplicationsCommand,
  ListBatchJobDefinitionsCommand,
  ListBatchJobRestartPointsCommand,
  M2Client,
  StartBatchJobCommand,
  paginateListBatchJobExecutions,
} from "@aws-sdk/client-m2";

const applicationId = process.argv[2];
const client = new M2Client({});
const results = {};

async function answer(command) {
  const { $metadata, ...members } = await client.send(command);
  return members;
}

async function refusal(command) {
  try {
    await client.send(command);
  } catch (error) {
    return {
      name: error.name,
      status: error.$metadata.httpStatusCode,
      attempts: error.$metadata.attempts,
      hasRequestId: typeof error.$metadata.requestId === "string",
      resourceId: error.resourceId,
      reason: error.reason,
      fields: error.fieldList?.map((field) => field.name),
    };
  }
  return { name: null };
}

async function list(query) {
  const ids = [];
  for await (const page of paginateListBatchJobExecutions({ client }, { applicationId, maxResults: 2, ...query })) {
    ids.push(...page.batchJobExecutions.map((execution) => execution.executionId));
  }
  return ids;
}

const file = (fileName) => ({ fileBatchJobIdentifier: { fileName } });
const start = (batchJobIdentifier, jobParams) =>
  new StartBatchJobCommand({ applicationId, batchJobIdentifier, jobParams });

if (process.argv[3] === "once") {
  results.refused = await refusal(start(file("POSTTRAN.jcl")));
} else {
  results.applications = (await answer(new ListApplicationsCommand({ names: ["CardDemo"] }))).applications;
  results.application = await answer(new GetApplicationCommand({ applicationId }));
  results.definitions = (
    await answer(new ListBatchJobDefinitionsCommand({ applicationId, prefix: "POST", maxResults: 5 }))
  ).batchJobDefinitions;
  const before = new Date(Date.now() - 60_000);
  results.started = [];
  for (const identifier of [
    file("POSTTRAN.jcl"),
    { scriptBatchJobIdentifier: { scriptName: "ä script" } },
    { s3BatchJobIdentifier: { bucket: "b", identifier: { fileName: "INTCALC.jcl" } } },
  ]) {
    results.started.push((await answer(start(identifier, { RUNDATE: "20261123", NAME: "é €" }))).executionId);
  }
  const [executionId, second] = results.started;
  const marker = { fromStep: "STEP15" };
  const restart = { restartBatchJobIdentifier: { executionId, jobStepRestartMarker: marker } };
  results.started.push((await answer(start(restart))).executionId);
  results.execution = await answer(new GetBatchJobExecutionCommand({ applicationId, executionId }));
  results.all = await list({ startedAfter: before });
  results.none = await list({ startedBefore: before });
  results.byId = await list({ executionIds: [executionId, second] });
  results.byName = await list({ jobName: "POSTTRAN" });
  results.failed = await list({ status: "Failed" });
  results.steps = (
    await answer(new ListBatchJobRestartPointsCommand({ applicationId, executionId }))
  ).batchJobSteps;
  results.cancelled = await answer(new CancelBatchJobExecutionCommand({ applicationId, executionId: second }));
  results.missing = await refusal(start(file("NOSUCH.jcl")));
  results.invalid = await refusal(start({ scriptBatchJobIdentifier: { scriptName: "A" } }, { 1: "x" }));
}
client.destroy();
console.log(JSON.stringify(results));
