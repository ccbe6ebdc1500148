"""Deployment: `jobs/check_cluster.py` checks the files that describe machines for Ray, and starts nothing.

`cluster_file` checks cluster.yaml, `rayjob_file` kuberay/rayjob.yaml; `yaml_file` reads them and has what they share.
"""
