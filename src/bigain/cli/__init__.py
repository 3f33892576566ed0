"""The command line: ``bigain`` followed by one of its commands.

demo, evaluate, classify, fit, generate, fid, inspect, methods, models, bound, bench, allocate, analyse, report, ui
"""

from bigain.cli.commands import app, main

__all__ = ["app", "main"]
