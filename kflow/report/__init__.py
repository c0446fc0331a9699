"""Telling: events, plans and records as text for a person."""
