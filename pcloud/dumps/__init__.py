"""Dumps as they are: what a file is by its first bytes, its statements, and what a restore would make of them."""

from pcloud.dumps.files import BadDump, Sent, glance
from pcloud.dumps.look import look

__all__ = ["BadDump", "Sent", "glance", "look"]
