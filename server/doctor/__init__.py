"""Look at what a server needs before it is started, and say how to mend what is not right.

Each check is a function that takes what it looks at and yields findings; none changes anything.
`command` runs all of them.
"""
