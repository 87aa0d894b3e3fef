"""The plan of one patient's body: build, proportions and contrast phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bundle.phantoms.shapes import Array, Point, curve

# Mean HU in three contrast phases; everything else is painted relative to these.
_PHASES: dict[str, dict[str, float]] = {
    "portal venous": {
        "aorta": 152, "vein": 146, "cortex": 178, "medulla": 158, "liver": 108, "pancreas": 92,
        "spleen": 117, "vessel": 38, "wall": 78, "heart": 140, "muscle": 60,
    },
    "late arterial": {
        "aorta": 255, "vein": 105, "cortex": 190, "medulla": 120, "liver": 82, "pancreas": 105,
        "spleen": 122, "vessel": 22, "wall": 85, "heart": 190, "muscle": 57,
    },
    "weak enhancement": {
        "aorta": 105, "vein": 96, "cortex": 122, "medulla": 110, "liver": 74, "pancreas": 58,
        "spleen": 84, "vessel": 18, "wall": 55, "heart": 95, "muscle": 52,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Torso:
    """The plan of one body: millimetres in a frame with x to the patient's left, y to posterior, z up."""

    half_width: float
    half_depth: float
    roundness: float
    fat: float
    visceral_fat: float
    muscle: float
    spine_y: float
    spine_x: float
    vertebra_phase: float
    scale_x: float
    size: float
    dome_right: float
    dome_left: float
    hu: dict[str, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Torso:
        build = rng.uniform(-1, 1)
        half_width = 162 + 15 * build + rng.uniform(-5, 5)
        half_depth = 119 + 13 * build + rng.uniform(-7, 7)
        fat = float(np.clip(15 + 10 * build + rng.uniform(-6, 8), 5, 36))
        muscle = rng.uniform(9, 14)
        phase = str(rng.choice(list(_PHASES), p=[0.65, 0.2, 0.15]))
        return cls(
            half_width=half_width,
            half_depth=half_depth,
            roundness=rng.uniform(2.1, 2.5),
            fat=fat,
            visceral_fat=float(np.clip(0.5 + 0.4 * build + rng.uniform(-0.2, 0.2), 0, 1)),
            muscle=muscle,
            spine_y=half_depth - 0.75 * fat - 58,
            spine_x=rng.uniform(-3, 3),
            vertebra_phase=rng.uniform(0, 30),
            scale_x=(half_width - fat - muscle) / 133,
            size=rng.uniform(0.92, 1.08),
            dome_right=rng.uniform(48, 66),
            dome_left=rng.uniform(38, 54),
            hu={name: value * rng.uniform(0.93, 1.07) for name, value in _PHASES[phase].items()},
        )

    @property
    def spine_front(self) -> float:
        return self.spine_y - 17

    def at(self, x: float, depth: float, z: float) -> Point:
        """A place in this body: x for an average build, depth 0 at the front of the spine and 1 at the
        anterior abdominal wall (negative: beside the spine), z as it is."""
        wall = -self.half_depth + self.fat + 0.8 * self.muscle
        return x * self.scale_x, self.spine_front + depth * (wall - self.spine_front), z

    def curve(self, *places: Point, count: int = 14) -> Array:
        """A smooth line (count, 3) through places as `at` takes them."""
        return curve([self.at(*place) for place in places], count)
