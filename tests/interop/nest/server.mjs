// A real Nest micro-service over TCP for the tests. Plain JavaScript, so that nothing is
// built: the decorators are called by hand, as compiled TypeScript calls them.
// Options: one JSON argument, Nest's TCP options; tlsOptions name files. It ends with stdin.
import 'reflect-metadata';
import { EventEmitter, once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, HttpException, Module, UseGuards } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  ClientProxyFactory, Ctx, EventPattern, MessagePattern, Payload, RpcException, Transport,
} from '@nestjs/microservices';
import {
  EMPTY, concat, from, ignoreElements, interval, lastValueFrom, map, range, take,
  throwError, timer,
} from 'rxjs';

process.stdin.resume().on('end', () => process.exit(0));

const constants = {
  null: null, false: false, true: true, zero: 0, empty: '', undefined: undefined,
  list: [], object: {}, emoji: 'naïve 👍🏽 日本語', date: new Date(0), nan: NaN,
  holes: [undefined, 1], partial: { kept: 1, dropped: undefined },
};

const errors = {
  text: () => new RpcException('broken'),
  emptyText: () => new RpcException(''),
  object: () => new RpcException({ code: 42, reason: 'broken' }),
  list: () => new RpcException(['broken', 42]),
  wrapped: () => new RpcException(new Error('broken')),
  plain: () => new Error('a secret'),
  http: () => new HttpException('a secret', 418),
  thrownText: () => 'a secret',
};

const streams = {
  of: ({ n }) => range(0, n), // the end is merged into the last item
  interval: ({ n, ms }) => interval(ms).pipe(take(n)),
  empty: () => EMPTY,
  delayedEnd: ({ n, ms }) => concat(range(0, n), timer(ms).pipe(ignoreElements())),
  failing: ({ n }) => concat(range(0, n), throwError(() => errors.object())),
  promise: async ({ n }) => range(0, n),
  objects: ({ n }) => range(0, n).pipe(map((number) => ({ number, text: '👍' }))),
  nulls: ({ n }) => from(Array(n).fill(null)),
};

const events = [];
const bell = new EventEmitter().setMaxListeners(0);

const record = (handler) => (data) => {
  events.push({ handler, data });
  bell.emit('event');
};

async function recorded(count) {
  while (events.length < count) await once(bell, 'event');
  return events;
}

// Passes a message on to another service, with all the metadata that came with it.
async function pass({ port, pattern, data }, context) {
  const client = ClientProxyFactory.create({ transport: Transport.TCP, options: { port } });
  client.setOnDispatchHook((packet) => { packet.metadata = context.getMetadata(); });
  try {
    return await lastValueFrom(client.send(pattern, data), { defaultValue: null });
  } catch (error) {
    throw new RpcException(error);
  } finally {
    client.close();
  }
}

// Answers once so many requests are in flight.
const present = [];
const meet = (count) => new Promise((resolve) => {
  if (present.push(resolve) === count) {
    present.splice(0).forEach((answer, index) => answer(index + 1));
  }
});

class Never {
  canActivate() { return false; }
}

const requests = [
  [{ cmd: 'sum' }, (numbers) => numbers.reduce((total, number) => total + number, 0)],
  [{ b: 1, a: { d: 2, c: 3 } }, (data) => ({ deep: data })],
  [7, () => 'seven'],
  ['größe.👍', (data) => data],
  ['echo', (data) => data],
  ['constant', (name) => constants[name]],
  ['fail', (name) => { throw errors[name](); }],
  ['guarded', () => 'unreachable', UseGuards(Never)],
  ['stream', (options) => streams[options.kind](options)],
  ['slow', (ms) => sleep(ms, ms)],
  ['meet', meet],
  ['metadata', (data, context) => context.getMetadata?.() ?? null],
  ['peer', (data, context) => context.getSocketRef().netSocket.getPeerCertificate().subject.CN],
  ['gateway', pass],
  ['events', recorded],
  ['events.forget', () => { events.length = 0; return true; }],
];

const listeners = [
  ['created', record('first')],
  ['created', record('second')],
  [{ topic: 'orders', kind: 'paid' }, record('object')],
];

class Handlers {}

function add(pattern, handle, name, ...decorators) {
  Handlers.prototype[name] = handle;
  Payload()(Handlers.prototype, name, 0);
  Ctx()(Handlers.prototype, name, 1);
  const descriptor = Object.getOwnPropertyDescriptor(Handlers.prototype, name);
  for (const decorate of decorators) decorate(Handlers.prototype, name, descriptor);
}

requests.forEach(([pattern, handle, ...decorators], index) =>
  add(pattern, handle, `request${index}`, MessagePattern(pattern), ...decorators));
listeners.forEach(([pattern, handle], index) =>
  add(pattern, handle, `event${index}`, EventPattern(pattern)));
Controller()(Handlers);

class Service {}
Module({ controllers: [Handlers] })(Service);

function readFiles(tls) {
  const files = ['key', 'cert', 'ca'].filter((name) => tls[name]);
  return { ...tls, ...Object.fromEntries(files.map((name) => [name, readFileSync(tls[name])])) };
}

const options = JSON.parse(process.argv.at(-1));
if (options.tlsOptions) options.tlsOptions = readFiles(options.tlsOptions);
const service = await NestFactory.createMicroservice(Service, {
  transport: Transport.TCP, options, logger: ['error', 'fatal'], // these two go to stderr
});
await service.listen();
console.log(JSON.stringify({ id: 0 }));
