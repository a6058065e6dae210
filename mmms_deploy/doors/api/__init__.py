"""The door for everybody else: the server's API (docs/server.md), and a client of it in Python."""

from mmms_deploy.doors.api.client import Client

__all__ = ["Client"]
