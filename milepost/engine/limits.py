"""Where the limits on workflows are kept: with the cluster, in Ray's own key-value table.

They last exactly as long as the cluster's actors can be restarted, whichever of them die together.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ray.experimental import internal_kv

from milepost.engine.admission import Limits
from milepost.engine.names import NAMESPACE


def load_limits(store_id: str) -> Limits:
    """Returns the limits in force for a store on this cluster."""
    get: Any = internal_kv._internal_kv_get  # Ray ships it untyped
    stored = get(_key(store_id), namespace=NAMESPACE.encode())
    return Limits(**json.loads(stored)) if stored else Limits()


def save_limits(store_id: str, limits: Limits) -> None:
    """Keeps the limits in force."""
    put: Any = internal_kv._internal_kv_put
    content = json.dumps(asdict(limits)).encode()
    put(_key(store_id), content, overwrite=True, namespace=NAMESPACE.encode())


def _key(store_id: str) -> bytes:
    return f"limits-{store_id}".encode()
