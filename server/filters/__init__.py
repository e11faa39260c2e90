"""Checks of words of users and of replies, before they are passed on."""
