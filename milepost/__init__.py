"""Durable execution for Ray."""
