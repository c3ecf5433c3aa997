"""The conformance suite: what every wire must do, ours or a third party's.

::

    class TestMyWire(TransportConformance):
        transport = MyTransport

        def options(self) -> dict[str, Any]:
            return {"url": "mywire://127.0.0.1:4000"}

pytest collects the class, and pytest-asyncio runs its tests, whatever its mode. The
suite reads the flags of the transport: a test is skipped where a flag says that the
wire cannot do it, or a hook is not given that the test needs; what a flag claims and
the wire does not do fails. Each test has a ``NAME`` and patterns of its own.
"""

import pytest

_PARTS = (
    "configured",
    "errors",
    "events",
    "faults",
    "headers",
    "lifecycle",
    "requests",
    "settling",
    "streams",
    "wildcards",
)
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from .configured import ConfiguredCases  # noqa: E402 - after their asserts are known
from .errors import ErrorCases  # noqa: E402
from .events import EventCases  # noqa: E402
from .faults import FaultCases  # noqa: E402
from .headers import HeaderCases  # noqa: E402
from .lifecycle import LifecycleCases  # noqa: E402
from .requests import RequestCases  # noqa: E402
from .settling import SettlingCases  # noqa: E402
from .streams import StreamCases  # noqa: E402
from .wildcards import WildcardCases  # noqa: E402

__all__ = ["TransportConformance"]


@pytest.mark.asyncio
class TransportConformance(
    RequestCases,
    ErrorCases,
    StreamCases,
    EventCases,
    HeaderCases,
    WildcardCases,
    SettlingCases,
    LifecycleCases,
    FaultCases,
    ConfiguredCases,
):
    """All cases; a wire's class names its ``transport`` and its ``options()``."""
