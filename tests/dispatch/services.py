"""What is injected in these tests."""

from typing import Annotated, Any

from django_microservices import Inject

STOCK = object()


def resolve_client(name: str) -> Any:
    """Find the only client."""
    return {"STOCK": STOCK}[name]


class Service:
    """What factories make."""


async def aservice() -> Service:
    """Make a service on the loop."""
    return Service()


Stock = Annotated[Any, Inject("STOCK")]
Made = Annotated[Service, Inject(Service)]
