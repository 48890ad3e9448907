"""``milepost doctor``: tries what a workflow will need, and says what to mend.

Versions, storage, clock and Ray are looked at one after the other; a fault in one keeps no other
from being looked at. Nothing is left behind, and nothing stored is read but the store's own root
file. Ray is tried in a process of its own, because it may hang, or end the process.
"""

from milepost.doctor.finding import Finding, Level
from milepost.doctor.rounds import examine

__all__ = ["Finding", "Level", "examine"]
