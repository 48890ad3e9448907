"""A campaign of random kills on real clusters, and the check of what they left behind.

:mod:`~campaign.campaign` plays it from one seed. Clusters of real processes
(:mod:`~campaign.stage`) run workflows of many shapes (:mod:`~campaign.programs`) for drivers of
their own (:mod:`~campaign.driver`), and parts of them are killed or paused
(:mod:`~campaign.strikes`). A file outside the engine keeps every execution of a task and everything
that drivers were told (:mod:`~campaign.ledger`). Afterwards that and the journals make one history
(:mod:`~campaign.history`), which must keep every promise (:mod:`~campaign.rules`).
"""
