"""Eq. 7 of SCWM with Python sets."""


def difficulty(global_neighbours, part_neighbours):
    scores = []
    for i, (of_global, of_part) in enumerate(zip(global_neighbours, part_neighbours, strict=True)):
        first = {int(j) for j in of_global if j >= 0 and j != i}
        second = {int(j) for j in of_part if j >= 0 and j != i}
        scores.append(len(first & second) / len(first | second) if first | second else 0.0)
    return scores
