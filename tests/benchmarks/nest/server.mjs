// Nest's server, with the handlers of ../app. Argument: its port. It ends with stdin.
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { EventPattern, MessagePattern, Transport } from '@nestjs/microservices';

process.stdin.resume().on('end', () => process.exit(0));

class Handlers {
  received = 0;
  accumulate(data) { return data.reduce((total, number) => total + number, 0); }
  echo(data) { return data; }
  created() { this.received += 1; }
  count() { return this.received; }
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
}
Controller()(Handlers);

class Service {}
Module({ controllers: [Handlers] })(Service);

const service = await NestFactory.createMicroservice(Service, {
  transport: Transport.TCP,
  options: { host: '127.0.0.1', port: Number(process.argv.at(-1)) },
  logger: ['error', 'fatal'],
});
await service.listen();
