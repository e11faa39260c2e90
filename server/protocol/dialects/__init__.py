"""How events look on a connection: the GA shape and the beta one."""
