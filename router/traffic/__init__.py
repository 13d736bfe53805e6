"""Served requests kept as examples, with the consent of who runs the server and who asks."""

from router.traffic.folder import TrafficFolder, read_traffic
from router.traffic.recorder import Consent, Recorder

__all__ = ["Consent", "Recorder", "TrafficFolder", "read_traffic"]
