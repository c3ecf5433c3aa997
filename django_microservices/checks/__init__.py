"""System checks: what would fail or surprise at run time (tag ``microservices``).

=====  ================================================================================
E001   ``MICROSERVICES`` is wrong: an unknown key or option, a wrong type ...
E002   a handler cannot be used as it is written
E003   two handlers on one server answer the same request
E004   a handler is bound to a server that settings do not have
E005   a pattern begins with "dm-", which is reserved
E006   a handler returns what cannot travel as it is: a model, a QuerySet, a plain class
E007   a text pattern that is JSON, so that nothing can reach it
E008   a certificate or key of ``tls_options`` or ``tls`` cannot be used
E009   a handler asks for a client that settings do not have
E010   middleware of settings cannot be put around anything
W001   two wildcard patterns on one server overlap
W002   a marked function is not served: outside of ``handlers.py``, or hidden there
W003   ``DATABASE_MAX_AGE`` and ``CONN_MAX_AGE`` are 0: a connection for each message
W004   (--deploy) a server listens beyond this host without TLS
W005   (--deploy) handlers of a third-party app are served by default
W006   (--deploy) ``reject_unauthorized`` is False: certificates are not verified
W007   (--deploy) a server cannot share work: each replica handles each message
W008   (--deploy) a server or client talks to a broker elsewhere without TLS
W009   two servers listen on the same address
I001   an entry is an async callable, which is not called by checks
I002   (--deploy) how many database connections the sync threads keep
=====  ================================================================================
"""

from typing import Any

from django.core.checks import CheckMessage, register

# The rest is imported when the checks run: every start of manage.py reads this file.

TAG = "microservices"


@register(TAG)
def check_microservices(**_: Any) -> list[CheckMessage]:
    """Construct everything in settings, and look at what came of it."""
    from . import addresses, database, handlers, middleware, tls
    from .found import Found

    found = Found()
    rooms = (handlers, middleware, database, tls, addresses)
    checks = [check for room in rooms for check in room.CHECKS]
    return [*found.messages, *(message for check in checks for message in check(found))]


@register(TAG, deploy=True)
def check_deployment(**_: Any) -> list[CheckMessage]:
    """Look at what matters in production."""
    from . import database, deployment
    from .found import Found

    found = Found()
    checks = (*deployment.CHECKS, *database.DEPLOY_CHECKS)
    return [message for check in checks for message in check(found)]
