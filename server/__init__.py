"""The gateway: clients on one side, the engine on the other."""
