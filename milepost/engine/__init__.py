"""Runs workflows on Ray: the only folder that imports Ray and unpickles anything.

A driver compiles a DAG (:mod:`~milepost.engine.compiler`) and submits it in one message to the
dispatcher that its id routes to (:mod:`~milepost.engine.dispatcher`). There a host
(:mod:`~milepost.engine.host`) drives the pure core, makes its events durable and sends slices of
tasks to workers (:mod:`~milepost.engine.workers`, :mod:`~milepost.engine.executor`).
"""
