"""Models behind OpenAI-compatible endpoints: options as patches, client, usage, probing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports

if TYPE_CHECKING:
    from m3router.data.prices import Prices as Prices
    from m3router.m3core.endpoint.connecting import connect as connect
    from m3router.m3core.endpoint.connecting import from_spec as from_spec
    from m3router.m3core.endpoint.endpoint_options import EndpointOption as EndpointOption
    from m3router.m3core.endpoint.endpoint_options import EndpointOptions as EndpointOptions
    from m3router.m3core.endpoint.endpoint_options import parse_options as parse_options
    from m3router.m3core.endpoint.endpoint_options import read_options as read_options
    from m3router.m3core.endpoint.keys import Key as Key
    from m3router.m3core.endpoint.meter import MeterReading as MeterReading
    from m3router.m3core.endpoint.meter import RequestLimitError as RequestLimitError
    from m3router.m3core.endpoint.model import EndpointModel as EndpointModel
    from m3router.m3core.endpoint.presets import PRESETS as PRESETS
    from m3router.m3core.endpoint.retries import RetryPolicy as RetryPolicy

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "EndpointModel": "m3router.m3core.endpoint.model",
            "EndpointOption": "m3router.m3core.endpoint.endpoint_options",
            "EndpointOptions": "m3router.m3core.endpoint.endpoint_options",
            "Key": "m3router.m3core.endpoint.keys",
            "MeterReading": "m3router.m3core.endpoint.meter",
            "PRESETS": "m3router.m3core.endpoint.presets",
            "Prices": "m3router.data.prices",
            "RequestLimitError": "m3router.m3core.endpoint.meter",
            "RetryPolicy": "m3router.m3core.endpoint.retries",
            "connect": "m3router.m3core.endpoint.connecting",
            "from_spec": "m3router.m3core.endpoint.connecting",
            "parse_options": "m3router.m3core.endpoint.endpoint_options",
            "read_options": "m3router.m3core.endpoint.endpoint_options",
        },
    )
