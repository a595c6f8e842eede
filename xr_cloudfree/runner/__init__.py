"""Runs over regions: what is written, how it goes on after a crash, and how it is checked."""
