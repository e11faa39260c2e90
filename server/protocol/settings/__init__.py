"""What a session and a response are configured with."""
