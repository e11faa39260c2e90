"""What can be set, and where it is read from.

`settings.Settings` is all of it, a section a module; every class says what its values mean.
`load` reads them from a file, the environment and the command line.
"""
