// Real Nest clients for the tests, driven by lines of JSON: a command on stdin, its answer
// on stdout under the same id. It ends with stdin.
//   {id, op, client: {transport: a name in Nest's Transport, metadata, and Nest's options,
//    where key, cert and ca name files}, pattern, data, items, take, timeout, js: the data
//    as a JavaScript expression, record: what a record builder adds to the data}
// Commands with equal `client` share one client, and so one connection.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Logger } from '@nestjs/common';
import {
  ClientProxyFactory, MqttRecord, NatsRecord, RmqRecord, Transport,
} from '@nestjs/microservices';
import { take, timeout } from 'rxjs';

Logger.overrideLogger(['error', 'fatal']); // these two go to stderr

const clients = new Map();

function clientFor(key) {
  const text = JSON.stringify(key);
  if (!clients.has(text)) clients.set(text, create(key));
  return clients.get(text);
}

function create({ transport, metadata, name, ...given }) {
  const options = readFiles(given);
  if (metadata) options.serializer = { serialize: (packet) => ({ ...packet, metadata }) };
  const client = ClientProxyFactory.create({ transport: Transport[transport], options });
  client.statuses = [];
  client.status.subscribe((status) => client.statuses.push(status));
  return client;
}

function readFiles(value, name) {
  if (typeof value === 'string') {
    return ['key', 'cert', 'ca'].includes(name) ? readFileSync(value) : value;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, readFiles(each, key)]));
}

// The data with what only one wire can send beside it.
const records = {
  NATS: async (data, { headers }) => {
    const nats = await import('@nats-io/transport-node');
    const native = nats.headers();
    for (const [name, value] of Object.entries(headers)) native.append(name, value);
    return new NatsRecord(data, native);
  },
  MQTT: (data, options) => new MqttRecord(data, options),
  RMQ: (data, options) => new RmqRecord(data, options),
};

// What an observable did: its values, and the error that ended it. A JavaScript Error has
// no keys that JSON would keep.
function collect(observable, command) {
  const limited = observable.pipe(
    take(command.take ?? Infinity), timeout(command.timeout ?? 20_000));
  const values = [];
  return new Promise((resolve) => limited.subscribe({
    next: (value) => values.push(value === undefined ? { undefined: true } : value),
    complete: () => resolve({ values }),
    error: (error) => resolve({ values, failed: true, ...describe(error) }),
  }));
}

function describe(error) {
  if (!(error instanceof Error)) return { error };
  const { name, message, code } = error;
  return { error: { name, message, code }, thrown: true };
}

const ops = {
  send: (client, command) => collect(client.send(command.pattern, command.data), command),
  emit: (client, command) => collect(client.emit(command.pattern, command.data), command),
  many: async (client, command) => ({
    answers: await Promise.all(
      command.items.map((data) => ops.send(client, { ...command, data }))),
  }),
  connect: async (client) => { await client.connect(); return { values: [] }; },
  close: (client) => { client.close(); return { values: [] }; },
  statuses: (client) => ({ values: client.statuses }),
};

async function run(command) {
  try {
    if (command.js) command.data = (0, eval)(`(${command.js})`);
    if (command.record) {
      command.data = await records[command.client.transport](command.data, command.record);
    }
    return await ops[command.op](clientFor(command.client), command);
  } catch (error) {
    return { values: [], failed: true, ...describe(error) };
  }
}

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on('close', () => process.exit(0));
lines.on('line', async (line) => {
  const command = JSON.parse(line);
  const answer = await run(command);
  console.log(JSON.stringify({ id: command.id, ...answer }));
});
console.log(JSON.stringify({ id: 0 }));
