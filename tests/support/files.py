"""Tables as people have them, as the text of a .csv."""

import numpy as np


def house(n=90, seed=0, streets=("Main", "Oak", "Hill"), gaps=0.1):
    """Prices that depend on the street; some areas are missing."""
    rng = np.random.default_rng(seed)
    lines = ["area,street,rooms,price"]
    for _ in range(n):
        area, street, rooms = rng.uniform(30, 200), rng.choice(streets), rng.integers(1, 7)
        price = 2000 * area + {"Main": 3e4, "Oak": 0, "Hill": -2e4}.get(street, 0) + 1e4 * rooms
        shown = "" if rng.random() < gaps else f"{area:.2f}"
        lines.append(f"{shown},{street},{rooms},{price + 5e3 * rng.normal():.3f}")
    return "\n".join(lines) + "\n"


# Of two classes, one with a name that begins with zeros.
CLASSES = "a,b,kind\n" + "".join(
    f"{a},{b},{'007x' if a + 0.3 * b > 0 else '08'}\n"
    for a, b in np.random.default_rng(0).normal(size=(80, 2)).tolist()
)
