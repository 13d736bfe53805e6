"""Which addresses of the internet are everybody's, and which are somebody's inside."""

from __future__ import annotations

import ipaddress

INSIDE_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    )
)
"""IANA's special-purpose registry (RFC 6890 and after) and multicast; the last is the inner
address of a cloud (Azure's wire server) although it looks global. Written out, since Python's
``is_global`` changed between patch releases (CVE-2024-4032)."""

GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA has given out as global unicast. Mapped, translated (NAT64), unique local,
link-local and multicast addresses are outside of it."""

INSIDE_V6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""Protocol assignments with Teredo, documentation, and 6to4, which leads to any IPv4 address."""


def is_public(address: str) -> bool:
    """Whether an address is a global one that no inside hides behind.

    Args:
        address: IPv4 or IPv6 in its usual form.

    Returns:
        False for everything else, also for what is not an address at all.

    >>> [is_public(one) for one in ("8.8.8.8", "10.0.0.1", "::ffff:8.8.8.8", "2002:a00:1::")]
    [True, False, False, False]
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not parsed.is_global or parsed.is_multicast:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in INSIDE_V4)
    return (
        parsed.scope_id is None
        and parsed in GLOBAL_V6
        and not any(parsed in network for network in INSIDE_V6)
    )
