// Nest's client, obeying the driver as ../peers/commands.py does. Argument: JSON, the name
// of its transport and the options.
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import { Logger } from '@nestjs/common';
import { ClientProxyFactory, Transport } from '@nestjs/microservices';
import { firstValueFrom } from 'rxjs';

Logger.overrideLogger(['error', 'fatal']); // stdout is for the driver
// noAck is what the server does; a client that listens to direct replies may not ack.
const { transport, noAck, ...options } = JSON.parse(process.argv.at(-1));
const client = ClientProxyFactory.create({ transport: Transport[transport], options });
const now = () => performance.now() / 1000;
const send = (pattern, data) => firstValueFrom(client.send(pattern, data));
const emit = (pattern, data) =>
  firstValueFrom(client.emit(pattern, data), { defaultValue: null });
const RECEIVED = { cmd: 'received' };
const PATIENCE = 20; // seconds

async function requests({ pattern, data, answer, seconds, concurrency }) {
  const first = await send(pattern, data);
  if (!isDeepStrictEqual(first, answer)) return { wrong: JSON.stringify(first) };
  if (concurrency > 1) await holdReplies(pattern);
  const start = now();
  const end = start + seconds;
  let count = 0;
  const work = async () => {
    while (now() < end) {
      await send(pattern, data);
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  return { count, seconds: now() - start };
}

// Nest's MQTT client subscribes to a pattern's replies with the first call in flight, and
// unsubscribes with the last: where several begin at once it loses some, and waits for
// ever. So it is helped to one subscription that stays.
async function holdReplies(pattern) {
  if (transport !== 'MQTT') return;
  const channel = `${JSON.stringify(pattern)}/reply`;
  if (client.subscriptionsCount.get(channel) > 0) return;
  await client.unwrap().subscribeAsync(channel);
  client.subscriptionsCount.set(channel, 1);
}

async function events({ pattern, data, seconds, concurrency }) {
  const before = await send(RECEIVED, 0);
  const start = now();
  const end = start + seconds;
  let count = 0;
  while (now() < end) {
    await Promise.all(Array.from({ length: concurrency }, () => emit(pattern, data)));
    count += concurrency;
  }
  while ((await send(RECEIVED, 0)) - before < count) {
    if (now() > end + PATIENCE) return { wrong: 'events were lost' };
  }
  return { count, seconds: now() - start };
}

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on('close', () => process.exit(0));
lines.on('line', async (line) => {
  const command = JSON.parse(line);
  const result = await (command.op === 'events' ? events : requests)(command);
  console.log(JSON.stringify({ id: command.id, ...result }));
});
console.log(JSON.stringify({ id: 0 }));
