"""What cannot be trusted where there are few images: one sentence after each stage, "" else."""

from __future__ import annotations

from m3router.router.evaluation.summary_text import FEW_IMAGES
from m3router.router.text.numbers import count
from m3router.router.text.words import Words


def few_to_learn(images: int, words: Words) -> str:
    """After training, by the images of the fit split.

    >>> few_to_learn(30, Words()), few_to_learn(200, Words())
    ('The router learned from 30 images only: its estimates are rough, and it may do no better \
than one fixed scale. From about 100 images on it is worth judging.', '')
    """
    if images >= FEW_IMAGES:
        return ""
    told = (
        f"The router learned from {count(images, 'image')} only: its estimates are rough, and it "
        f"may do no better than one fixed scale. From about {FEW_IMAGES} images on it is worth "
        "judging."
    )
    return words.of(told)


def few_to_calibrate(images: int, words: Words) -> str:
    """After calibrating, by the images of the calibration split.

    >>> few_to_calibrate(1, Words())
    'Calibrated on 1 image only: the mean cost and the share that is right may well be others on \
new images. From about 100 images on, such numbers settle.'
    """
    if images >= FEW_IMAGES:
        return ""
    told = (
        f"Calibrated on {count(images, 'image')} only: the mean cost and the share that is right "
        f"may well be others on new images. From about {FEW_IMAGES} images on, such numbers settle."
    )
    return words.of(told)
