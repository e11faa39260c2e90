"""The Realtime protocol as a machine without I/O.

Client events and engine outputs go in, server events and engine commands come out. It imports no
event loop, no web framework and no torch, so it is tested as plain function calls and serves any
transport.
"""
