"""Encoders to quantise, and the texts to do it with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.checkpoint import read_checkpoint
from service.encoder.anatomy import examine
from service.encoder.loading import load_module
from service.encoder.quantization import batches, calibration_texts
from service.encoder.tokenizer import Tokenizer, load_tokenizer


class Loaded:
    """A checkpoint with what a calibration takes of it."""

    def __init__(self, folder, texts=None):
        self.checkpoint = read_checkpoint(str(folder))
        self.tokenizer = Tokenizer(load_tokenizer(self.checkpoint))
        fitting, held_out = calibration_texts(None)
        self.fitting = self.batches(fitting[:texts])
        self.held_out = self.batches(held_out)

    def module(self):
        return load_module(self.checkpoint, torch.float32)

    def rows(self, texts):
        limit = min(256, examine(self.checkpoint).positions or 256)
        return [self.tokenizer.truncate(text, limit).ids for text in self.tokenizer.encode(texts)]

    def batches(self, texts):
        return list(batches(self.rows(texts), pad_id=self.tokenizer.pad_id))


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory):
    """Makes a tiny checkpoint by one of the functions in tests/checkpoints.py, and loads what belongs to it."""

    def make(plain, texts=60):
        return Loaded(plain(tmp_path_factory.mktemp("checkpoint") / plain.__name__), texts)

    return make


@pytest.fixture
def generator():
    return np.random.default_rng(0)
