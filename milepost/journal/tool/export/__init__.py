"""A workflow in forms that other tools read. Everything is written as it is read."""
