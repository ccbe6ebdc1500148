"""The methods, in the forms for which every promise of the engine is tested; a new method is added here."""

from typing import Any

STAGES = {"stage_epochs": 1, "merge_share": 0.3, "embedding": 32, "learning_rate": 0.01}

FORMS: dict[str, dict[str, Any]] = {
    "aac": {"method": {"name": "aac"}, "aac": {"least": 2}},
    "acrm": {"method": {"name": "acrm"}, "acrm": {"graph": 8}},
    "buc": {"method": {"name": "buc"}, "buc": {**STAGES, "first_epochs": 2, "least_clusters": 60}},
    "ihc": {"method": {"name": "ihc"}, "ihc": {**STAGES, "first_epochs": 1}},
    "pplr": {"method": {"name": "pplr"}, "pplr": {"agreement_neighbours": 6, "agreement_from": 1}},
    "pplr_cameras": {
        "method": {"name": "pplr"},
        "pplr": {"agreement_neighbours": 6, "agreement_from": 1, "camera_weight": 0.5},
    },
    "scwm_stripes": {"method": {"name": "scwm"}, "scwm": {"parts": "stripes"}},
}
"""Settings beside those of the tiny run, by the name of the form. SCWM and Cluster Contrast have tests of their own."""
