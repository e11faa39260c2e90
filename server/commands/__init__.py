"""The commands of `parley`, one a file: its help, its arguments, and what it runs.

Nothing heavy is imported on top of these files: `parley --help` reads all of them.
"""
