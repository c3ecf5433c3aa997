// A real Nest micro-service for the tests. Plain JavaScript, so that nothing is built: the
// decorators are called by hand, as compiled TypeScript calls them. It ends with stdin.
// One JSON argument: {transport: a name in Nest's Transport, options: Nest's for it, where
// key, cert and ca name files, handlers: more of them, [{pattern, event, extras, settle}]}.
// Where the options say `noAck: false` each handler settles its message after it ran; with
// settle: 'nack', 'requeue' (then ack it when it comes again), 'none', else 'ack'.
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

const record = (handler) => (data, context) => {
  events.push({ handler, data, wire: describe(context) });
  bell.emit('event');
};

// What only the wire of a message knows.
const wires = {
  TcpContext: (context) => ({ pattern: context.getPattern() }),
  RedisContext: (context) => (
    { channel: context.getChannel(), metadata: context.getMetadata() }),
  NatsContext: (context) => ({
    subject: context.getSubject(), headers: Object.fromEntries(context.getHeaders() ?? []),
  }),
  MqttContext: (context) => {
    const { qos, retain, dup, properties } = context.getPacket();
    return { topic: context.getTopic(), qos, retain, dup, properties };
  },
  RmqContext: (context) => {
    const { fields, properties } = context.getMessage();
    return { pattern: context.getPattern(), fields, properties };
  },
};

const describe = (context) => wires[context.constructor.name](context);

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
  ['context', (data, context) => describe(context)],
  ['peer', (data, context) => context.getSocketRef().netSocket.getPeerCertificate().subject.CN],
  ['gateway', pass],
  ['events', async (count) => (await recorded(count)).map(({ handler, data }) => ({ handler, data }))],
  ['events.wire', recorded],
  ['events.forget', () => { events.length = 0; return true; }],
];

const listeners = [
  ['created', record('first')],
  ['created', record('second')],
  [{ topic: 'orders', kind: 'paid' }, record('object')],
];

const { transport, options, handlers } = JSON.parse(process.argv.at(-1));

class Handlers {}

function add(decorator, handle, settle, ...decorators) {
  const name = `handler${Object.getOwnPropertyNames(Handlers.prototype).length}`;
  Handlers.prototype[name] = options.noAck === false ? settled(handle, settle) : handle;
  Payload()(Handlers.prototype, name, 0);
  Ctx()(Handlers.prototype, name, 1);
  const descriptor = Object.getOwnPropertyDescriptor(Handlers.prototype, name);
  for (const decorate of [decorator, ...decorators]) {
    decorate(Handlers.prototype, name, descriptor);
  }
}

const settling = {
  ack: (channel, message) => channel.ack(message),
  nack: (channel, message) => channel.nack(message, false, false),
  requeue: (channel, message) =>
    (message.fields.redelivered ? channel.ack(message) : channel.nack(message)),
  none: () => {},
};

const settled = (handle, settle = 'ack') => async (data, context) => {
  try {
    return await handle(data, context);
  } finally {
    settling[settle](context.getChannelRef(), context.getMessage());
  }
};

for (const [pattern, handle, ...decorators] of requests) {
  add(MessagePattern(pattern), handle, 'ack', ...decorators);
}
for (const [pattern, handle] of listeners) add(EventPattern(pattern), handle);
for (const { pattern, event, extras, settle } of handlers) {
  const answer = (data, context) => ({ handler: pattern, data, wire: describe(context) });
  if (event) add(EventPattern(pattern, extras), record(pattern), settle);
  else add(MessagePattern(pattern, extras), answer, settle);
}
Controller()(Handlers);

class Service {}
Module({ controllers: [Handlers] })(Service);

function readFiles(value, name) {
  if (typeof value === 'string') {
    return ['key', 'cert', 'ca'].includes(name) ? readFileSync(value) : value;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, readFiles(each, key)]));
}

// Nest says that it listens before the broker has its subscriptions; this comes after them.
const subscribed = {
  REDIS: ([, subscriber]) => subscriber.ping(),
  NATS: (connection) => connection.flush(),
  MQTT: (client) => client.subscribeAsync(`ready/${process.pid}`),
};

const service = await NestFactory.createMicroservice(Service, {
  transport: Transport[transport],
  options: readFiles(options),
  logger: ['error', 'fatal'], // these two go to stderr
});
await service.listen();
await subscribed[transport]?.(service.unwrap());
console.log(JSON.stringify({ id: 0 }));
