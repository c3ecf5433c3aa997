"""The bodies of Nest's RabbitMQ wire: those of all wires, but replies have no id.

The correlation id tells whose a reply is; only "no handler" has both
(``reference/nest-wire.md`` A.7).
"""

from ...exceptions import InvalidMessage
from ...wire.messages import Reply
from ...wire.packets import read_reply, write_reply

CANCEL = b'{"pattern":"dm-cancel"}'
"""Our own, to a server of ours alone: nobody reads the stream any more."""
NOT_JSON = b"(not JSON)"
"""An answer that cannot be read, so that the call ends with an error of its own."""


def reply_text(reply: Reply) -> bytes:
    """Encode a reply without its id."""
    data = reply.data
    if data is not None:
        if reply.last:
            return b'{"response":%b,"isDisposed":true}' % data
        return b'{"response":%b}' % data
    if reply.missing:
        return write_reply(reply)
    if reply.error is not None:
        return b'{"err":%b,"isDisposed":true}' % reply.error
    return b'{"isDisposed":true}' if reply.last else b"{}"


def read_answer(id_: str, body: bytes) -> Reply:
    """Read the reply to the request ``id_``; one that cannot be read ends it too."""
    try:
        reply = read_reply(body)
    except InvalidMessage:
        reply = None
    if reply is None:
        return Reply(id_, NOT_JSON)
    reply.id = id_
    return reply
