"""A workflow of three tasks. Run it twice: the second time no task runs, the answer is there.

It is shown whole in the README.
"""

import ray

import milepost


@ray.remote
def price(item: str) -> float:
    return {"tea": 3.0, "cake": 4.5}[item]


@ray.remote
def total(tea: float, cake: float) -> float:
    return tea + cake


milepost.init()
order = total.bind(price.bind("tea"), price.bind("cake"))
print(milepost.run(order, workflow_id="order-17"))
