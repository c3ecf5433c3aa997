"""Our own extension of Nest's wire: ours to ours, and invisible to Nest.

Source: ``reference/nest-wire.md`` A.10. It rests on what Nest does with what it does
not know: a reply packet of an unknown id is dropped, a text in metadata ignored.
"""

from ...wire.messages import Reply

PING, CANCEL = "dm-ping", "dm-cancel"
HELLO = Reply("dm-hello", b'{"v":1}')
BYE = Reply("dm-bye", b"null")
ALIVE = Reply("dm-alive", b"null")
"""What a server sends that does not read for a while: a ping would wait unread."""
