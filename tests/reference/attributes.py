"""AAC's section 3.2, one image after another: dictionaries and lists, in the paper's words."""


def clusters_after(labels, attributes, delta):
    """The clusters as a set of sets of images, outliers left out.

    "The samples which have the same pseudo labels are classified as the same cluster and some clusters contain
    different attribute labels. For the samples which are in the same cluster and the number of the samples with the
    same attribute label [at least] a threshold, we document their attribute label as t_1 .. t_K": each t_k gets its
    images, and the samples that no t_k describes are together as before.
    """
    clusters = {}
    for image, label in enumerate(labels):
        if label >= 0:
            clusters.setdefault(label, []).append(image)
    after = []
    for images in clusters.values():
        described, undescribed = {}, []
        for image in images:
            attribute_label = tuple(attributes[image])
            if all(value == -1 for value in attribute_label):
                undescribed.append(image)
            else:
                described.setdefault(attribute_label, []).append(image)
        for same in described.values():
            if len(same) >= delta:
                after.append(same)
            else:
                undescribed.extend(same)
        if undescribed:
            after.append(undescribed)
    return {frozenset(images) for images in after}


def labels_after(labels, attributes, delta):
    """The same clusters with numbers: old clusters keep theirs for the images that are left, or for the largest part
    (the one with the lowest image, of several) where none is left; then new ones in the order of their lowest images.
    """
    after = clusters_after(labels, attributes, delta)
    numbers, fresh = {}, []
    for old in sorted({label for label in labels if label >= 0}):
        parts = [part for part in after if labels[min(part)] == old]
        left = [part for part in parts if not _is_one_large_group(part, attributes, delta)]
        keeps = left[0] if left else min(parts, key=lambda part: (-len(part), min(part)))
        numbers[keeps] = old
        fresh += [part for part in parts if part is not keeps]
    for number, part in enumerate(sorted(fresh, key=min), start=len(numbers)):
        numbers[part] = number
    found = list(labels)
    for part, number in numbers.items():
        for image in part:
            found[image] = number
    return found


def _is_one_large_group(part, attributes, delta):
    vectors = {tuple(attributes[image]) for image in part}
    return len(part) >= delta and len(vectors) == 1 and set(next(iter(vectors))) != {-1}
