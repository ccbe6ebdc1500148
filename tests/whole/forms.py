"""The methods, in the forms for which every promise of the engine is tested; a new method is added here."""

from typing import Any

TRACKLETS = {"frames": 2, "drawn": {"frames": 4}}
STAGES = {"stage_epochs": 1, "merge_share": 0.3, "embedding": 32, "learning_rate": 0.01}

FORMS: dict[str, dict[str, Any]] = {
    "aac": {"method": {"name": "aac"}, "aac": {"least": 2}},
    "acrm": {"method": {"name": "acrm"}, "acrm": {"graph": 8}},
    "acrm_tracklets": {"data": TRACKLETS, "method": {"name": "acrm"}, "acrm": {"graph": 8}},
    "buc": {"method": {"name": "buc"}, "buc": {**STAGES, "first_epochs": 2, "least_clusters": 60}},
    "buc_tracklets": {
        "data": TRACKLETS,
        "method": {"name": "buc"},
        "buc": {**STAGES, "first_epochs": 1, "least_clusters": 60},
    },
    "cluster_contrast_tracklets": {"data": TRACKLETS, "method": {"name": "cluster_contrast"}},
    "cluster_contrast_steady": {
        "method": {"name": "cluster_contrast"},
        "train": {"ema": 0.7, "clean_statistics": 64, "warm_up": 5},
    },
    "ihc": {"method": {"name": "ihc"}, "ihc": {**STAGES, "first_epochs": 1}},
    "ihc_tracklets": {"data": TRACKLETS, "method": {"name": "ihc"}, "ihc": {**STAGES, "first_epochs": 1}},
    "pplr": {"method": {"name": "pplr"}, "pplr": {"agreement_neighbours": 6, "agreement_from": 1}},
    "pplr_cameras": {
        "method": {"name": "pplr"},
        "pplr": {"agreement_neighbours": 6, "agreement_from": 1, "camera_weight": 0.5},
    },
    "scwm_tracklets": {"data": TRACKLETS, "method": {"name": "scwm"}},
    "scwm_stripes": {"method": {"name": "scwm"}, "scwm": {"parts": "stripes"}},
}
"""Settings beside those of the tiny run, by the name of the form. SCWM and Cluster Contrast have tests of their own."""
