"""The commands that look at a store: one noun per module, loaded when it is used.

They read and never write, need no Ray, and run no stored code.
"""
