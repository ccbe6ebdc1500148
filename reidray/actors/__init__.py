"""Ray: the one room that knows of it. `placing` makes actors of plain objects, `train_group` a group of workers."""
