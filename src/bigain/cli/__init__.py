"""``bigain evaluate | classify | fit | generate | fid | inspect | methods | allocate | analyse | report``."""

from bigain.cli.commands import app, main

__all__ = ["app", "main"]
