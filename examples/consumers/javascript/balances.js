// Balances of bank accounts in memory, built from the beginning of the topic at each start: kafkajs and avsc.
//
//   node balances.js TOPIC [--until-end] [--cloudevents]
//
// `--cloudevents`: the headers are read by the official CloudEvents package.
//
// For a read model that lasts, keep the offsets and each stream's version and id in its database, and write them in the
// transaction that applies the events.

import { randomUUID } from "node:crypto";
import kafkajs from "kafkajs";
import lz4 from "lz4js";
import * as cloudevents from "./cloudevents.js";
import * as headers from "./headers.js";
import { Events } from "./events.js";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;

// The relay compresses with lz4 unless told otherwise, and kafkajs comes with gzip only: without a codec it throws
// KafkaJSNotImplemented at the first record. This one is plain JavaScript, and only reads.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: () => {
    throw new Error("this consumer writes nothing");
  },
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const [topic, ...options] = process.argv.slice(2);
const { envelope } = options.includes("--cloudevents") ? cloudevents : headers;
const events = new Events(process.env.ANNALS_REGISTRY_URL);
const last = new Map(); // stream -> { version, id }
const cents = {};

const kafka = new Kafka({ clientId: "balances", brokers: [process.env.ANNALS_KAFKA], logLevel: logLevel.ERROR });
// A group of its own at each start, because the read model begins anew, too. kafkajs reads committed records unless it is told
// `readUncommitted: true`.
const consumer = kafka.consumer({ groupId: `balances-${randomUUID()}`, readUncommitted: false });
await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });

const ended = untilEnd();
// A handler that throws makes kafkajs begin the batch again, for ever where the cause stays. What needs a person ends the program.
const failed = new Promise((_, reject) => consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error)));
await consumer.run({
  eachBatch: async ({ batch, heartbeat }) => {
    let applied = 0;
    for (const record of batch.messages) {
      try {
        if (await take(record)) applied += 1;
      } catch (error) {
        error.message += ` (partition ${batch.partition}, offset ${record.offset})`;
        error.retriable = false;
        throw error;
      }
      await heartbeat();
    }
    if (applied > 0) console.log("applied", applied);
  },
});

try {
  await Promise.race([failed, options.includes("--until-end") ? ended : new Promise(() => {})]);
  console.log(JSON.stringify({ balances: Object.fromEntries(Object.entries(cents).sort()) }));
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}

/** Applies a record, if it is an event that was not applied before. */
async function take(record) {
  const of = envelope(record);
  if (of === null || !isNew(of)) return false;
  const { stream } = of;
  const { type, event } = await events.decode(of.value);
  switch (type) {
    case "bank.bank_account.MoneyPaidIn":
    case "bank.bank_account.TransferReceived":
      cents[stream] += event.cents;
      break;
    case "bank.bank_account.MoneyWithdrawn":
    case "bank.bank_account.TransferSent":
      cents[stream] -= event.cents;
      break;
    case "bank.bank_account.BankAccountOpened":
      cents[stream] = 0;
      break;
  }
  return true;
}

/** The version filter of docs/topics.md. */
function isNew({ stream, version, previous, id }) {
  const known = last.get(stream) ?? { version: -1 };
  if (version === known.version && id !== known.id) {
    throw new Error(`fork: ${stream} version ${version}: ${known.id} was applied, ${id} came`);
  }
  if (previous > known.version) {
    throw new Error(`gap: ${stream} version ${known.version + 1} is missing, ${version} came`);
  }
  if (version <= known.version) return false;
  last.set(stream, { version, id });
  return true;
}

/** Resolves where the topic ends. Markers of transactions and aborted records are offsets, too, which no handler sees. */
async function untilEnd() {
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map((await admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, BigInt(high)]));
  await admin.disconnect();
  return new Promise((resolve) => {
    const left = new Set([...ends].filter(([, end]) => end > 0n).map(([partition]) => partition));
    consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
      if (BigInt(payload.lastOffset) + 1n >= ends.get(payload.partition)) left.delete(payload.partition);
      if (left.size === 0) resolve();
    });
  });
}
