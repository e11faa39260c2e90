"""Function schemas, worked on where it can hurt nobody.

relax     what of a schema a grammar can hold
desk      the work itself: compile, write within a grammar, check what was written
results   what comes of it
worker    a limited process that sits at a desk
service   the owner of one worker: its queue, what it remembers, its restarts
"""
