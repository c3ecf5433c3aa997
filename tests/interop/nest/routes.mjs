// What Nest makes of patterns. On stdin a list of JSON texts, one for each pattern; on
// stdout for each the route that it is registered under, and the one that a TCP server
// looks up when it arrives in a packet.
import { text } from 'node:stream/consumers';
import { ServerTCP } from '@nestjs/microservices';
import { transformPatternToRoute } from '@nestjs/microservices/utils/transform-pattern.utils.js';

const server = new ServerTCP({});

function arrived(pattern) { // as in ServerTCP.handleMessage
  const name = typeof pattern === 'string' ? pattern : JSON.stringify(pattern);
  return `${server.getRouteFromPattern(name)}`;
}

const patterns = JSON.parse(await text(process.stdin)).map((each) => JSON.parse(each));
console.log(JSON.stringify(
  patterns.map((pattern) => [`${transformPatternToRoute(pattern)}`, arrived(pattern)])));
