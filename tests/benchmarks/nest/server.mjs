// Nest's server, with the handlers of ../app. Argument: JSON, the name of its transport
// and the options. It says when it is ready, and ends with stdin.
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  Ctx, EventPattern, MessagePattern, Payload, Transport,
} from '@nestjs/microservices';

process.stdin.resume().on('end', () => process.exit(0));

const { transport, ...options } = JSON.parse(process.argv.at(-1));

function settle(context) {
  if (options.noAck === false) context.getChannelRef().ack(context.getMessage());
}

class Handlers {
  received = 0;
  accumulate(data, context) {
    settle(context);
    return data.reduce((total, number) => total + number, 0);
  }
  echo(data, context) {
    settle(context);
    return data;
  }
  created(data, context) {
    settle(context);
    this.received += 1;
  }
  count(data, context) {
    settle(context);
    return this.received;
  }
}

const patterns = {
  accumulate: MessagePattern({ cmd: 'sum' }),
  echo: MessagePattern({ cmd: 'echo' }),
  created: EventPattern('created'),
  count: MessagePattern({ cmd: 'received' }),
};
for (const [name, decorate] of Object.entries(patterns)) {
  const method = Object.getOwnPropertyDescriptor(Handlers.prototype, name);
  decorate(Handlers.prototype, name, method);
  Payload()(Handlers.prototype, name, 0);
  Ctx()(Handlers.prototype, name, 1);
}
Controller()(Handlers);

class Service {}
Module({ controllers: [Handlers] })(Service);

const service = await NestFactory.createMicroservice(Service, {
  transport: Transport[transport],
  options,
  logger: ['error', 'fatal'],
});
await service.listen();
console.log(JSON.stringify({ id: 0 }));
