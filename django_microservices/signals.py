"""What others may observe.

``microservice_*`` send ``microservice``; ``message_*`` send ``context`` (a
:class:`~django_microservices.MessageContext`), and ``message_handled`` and
``message_failed`` also ``seconds``; ``message_failed`` sends ``exception``. Receivers
of ``message_*`` run on the event loop's thread: they must return quickly.
"""

from django.dispatch import Signal

microservice_starting = Signal()
microservice_ready = Signal()
microservice_stopping = Signal()

message_received = Signal()
message_handled = Signal()
message_failed = Signal()
