"""A workflow on one page: a file that works by itself, offline, on a phone and on a wide screen."""
