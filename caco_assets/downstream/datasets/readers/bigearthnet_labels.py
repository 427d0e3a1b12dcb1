"""BigEarthNet labels: 43 classes of CORINE Land Cover and their grouping into 19 (Sumbul et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from caco_assets.core.errors import UserError

_AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"
CLASSES = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    _AGRICULTURE,
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
"""The 19 classes, in the order of the authors' index."""
GROUPS: dict[str, str | None] = {
    "Continuous urban fabric": "Urban fabric",
    "Discontinuous urban fabric": "Urban fabric",
    "Industrial or commercial units": "Industrial or commercial units",
    "Non-irrigated arable land": "Arable land",
    "Permanently irrigated land": "Arable land",
    "Rice fields": "Arable land",
    "Vineyards": "Permanent crops",
    "Fruit trees and berry plantations": "Permanent crops",
    "Olive groves": "Permanent crops",
    "Annual crops associated with permanent crops": "Permanent crops",
    "Pastures": "Pastures",
    "Complex cultivation patterns": "Complex cultivation patterns",
    _AGRICULTURE: _AGRICULTURE,
    "Agro-forestry areas": "Agro-forestry areas",
    "Broad-leaved forest": "Broad-leaved forest",
    "Coniferous forest": "Coniferous forest",
    "Mixed forest": "Mixed forest",
    "Natural grassland": "Natural grassland and sparsely vegetated areas",
    "Sparsely vegetated areas": "Natural grassland and sparsely vegetated areas",
    "Moors and heathland": "Moors, heathland and sclerophyllous vegetation",
    "Sclerophyllous vegetation": "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland/shrub": "Transitional woodland, shrub",
    "Beaches, dunes, sands": "Beaches, dunes, sands",
    "Inland marshes": "Inland wetlands",
    "Peatbogs": "Inland wetlands",
    "Salt marshes": "Coastal wetlands",
    "Salines": "Coastal wetlands",
    "Water courses": "Inland waters",
    "Water bodies": "Inland waters",
    "Coastal lagoons": "Marine waters",
    "Estuaries": "Marine waters",
    "Sea and ocean": "Marine waters",
    # the eleven that the authors left out of the 19
    **dict.fromkeys(
        (
            "Road and rail networks and associated land",
            "Port areas",
            "Airports",
            "Mineral extraction sites",
            "Dump sites",
            "Construction sites",
            "Green urban areas",
            "Sport and leisure facilities",
            "Bare rock",
            "Burnt areas",
            "Intertidal flats",
        )
    ),
}
"""Label of the 43 → its class of the 19; None: in none."""
_INDEX = {name: number for number, name in enumerate(CLASSES)}


def of_43(labels: Iterable[str], where: str) -> np.ndarray:
    """uint8 (19,) of labels of the first version.

    Raises:
        UserError: a label is not one of the 43; `where` names the file.
    """
    row = np.zeros(len(CLASSES), np.uint8)
    for label in labels:
        if label not in GROUPS:
            raise UserError(f"{where}: label {label!r} is none of BigEarthNet's 43; use the authors' labels")
        group = GROUPS[label]
        if group is not None:
            row[_INDEX[group]] = 1
    return row


def of_19(labels: Iterable[str], where: str) -> np.ndarray:
    """uint8 (19,) of labels of the second version.

    Raises:
        UserError: a label is not one of the 19; `where` names the file.
    """
    row = np.zeros(len(CLASSES), np.uint8)
    for label in labels:
        if label not in _INDEX:
            raise UserError(f"{where}: label {label!r} is none of BigEarthNet's 19; use the authors' labels")
        row[_INDEX[label]] = 1
    return row
