"""Served requests kept as examples, with the consent of who runs the server and who asks."""

from m3router.router.traffic.folder import TrafficFolder, read_traffic
from m3router.router.traffic.recorder import Consent, Recorder

__all__ = ["Consent", "Recorder", "TrafficFolder", "read_traffic"]
