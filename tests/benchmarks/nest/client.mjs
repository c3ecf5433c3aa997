// Nest's client, obeying the driver as ../peers/commands.py does. Argument: the port.
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import { ClientProxyFactory, Transport } from '@nestjs/microservices';
import { firstValueFrom } from 'rxjs';

const client = ClientProxyFactory.create({
  transport: Transport.TCP,
  options: { host: '127.0.0.1', port: Number(process.argv.at(-1)) },
});
const now = () => performance.now() / 1000;
const send = (pattern, data) => firstValueFrom(client.send(pattern, data));
const emit = (pattern, data) =>
  firstValueFrom(client.emit(pattern, data), { defaultValue: null });
const RECEIVED = { cmd: 'received' };
const PATIENCE = 20; // seconds

async function requests({ pattern, data, answer, seconds, concurrency }) {
  const first = await send(pattern, data);
  if (!isDeepStrictEqual(first, answer)) return { wrong: JSON.stringify(first) };
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
