"""Ray: no other package imports it. `remote` makes actors of plain objects, `train_group` runs the group of workers."""
